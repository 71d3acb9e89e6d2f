"""The page's server, without a browser: who is answered, what is refused, and what is refined and written."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread, Timer
from typing import Any
from urllib.parse import quote, urlencode

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sharpcontour.anymask.refiner import load_refiner
from sharpcontour.app import command, page, page_work
from sharpcontour.app.page import PageServer
from sharpcontour.app.photograph import refine_files
from sharpcontour.contours.rasterize import rings_to_masks
from sharpcontour.errors import InputError
from sharpcontour.formats.output_files import FORMATS
from tests.sharpcontour.helpers import huge_png, iou
from tests.sharpcontour.weights import write_weights

H, W = 180, 240
ROWS, COLUMNS = np.mgrid[:H, :W] + 0.5
DISC = np.hypot(COLUMNS - 100, ROWS - 90) < 50
TURNS = np.linspace(0, 2 * np.pi, 24, endpoint=False)
ROUGH = np.stack([100 + 57 * np.cos(TURNS), 90 + 57 * np.sin(TURNS)], 1)  # 7 px too large
DRAWN = {"name": "object 1", "category": None, "category_id": None, "score": None, "crowd": False}


def photograph(path: Path, orientation: int = 1) -> Path:
    """A bright disc on a dark ground."""
    noise = np.random.default_rng(0).normal(0, 6, (H, W, 3))
    pixels = np.where(DISC[..., None], (220, 180, 60), (40, 70, 90)) + noise
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, "JPEG", exif=exif, quality=95)
    return path


class Client:
    """Asks a server as the page does."""

    def __init__(self, server: PageServer) -> None:
        self.server, self.host = server, f"127.0.0.1:{server.server_port}"

    def ask(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, **query: Any
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=60)
        own = {} if body is None else {"Origin": f"http://{self.host}"}
        address = f"{path}?{urlencode(query)}"
        connection.request("GET" if body is None else "POST", address, body, {**own, **(headers or {})})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data, answer.headers

    def told(self, path: str, body: Any, **query: Any) -> Any:
        """What a request that must succeed answers."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, answer, _ = self.ask(path, data, **query)
        assert status == 200, answer
        return json.loads(answer)

    def error(self, path: str, body: bytes, **query: Any) -> str:
        """The message of a request that must be refused for what it holds."""
        status, answer, _ = self.ask(path, body, **query)
        assert status == 422, answer
        message: str = json.loads(answer)["error"]
        assert "\n" not in message and "/tmp" not in message, message
        return message

    def add(self, path: Path) -> Any:
        return self.told("/photograph", path.read_bytes(), name=path.name)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("refiner") / "weights.pt")


@pytest.fixture(scope="module")
def client(weights: Path) -> Iterator[Client]:
    yield from served(weights)


@pytest.fixture(scope="module")
def trained() -> Iterator[Client]:
    yield from served(None)


def served(weights: Path | None) -> Iterator[Client]:
    server = PageServer(lambda: load_refiner(weights), 0)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield Client(server)
    server.shutdown()
    thread.join()
    server.work.close()
    server.server_close()


def test_the_page_and_its_files_come_from_here_alone(client: Client) -> None:
    texts = []
    for path in page.FILES:
        status, data, headers = client.ask(path)
        assert status == 200 and headers["X-Content-Type-Options"] == "nosniff"
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "*" not in policy
        texts.append(data.decode())
    assert "http" not in "".join(texts).replace("http://www.w3.org/2000/svg", "")
    assert " style=" not in texts[0] and "onclick=" not in texts[0] and "<script>" not in texts[0]
    assert client.ask("/page.py")[0] == 404 and client.ask("/../page.py")[0] == 404


def test_other_hosts_are_refused(client: Client) -> None:
    port = client.server.server_port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
        assert client.ask("/", headers={"Host": host})[0] == 200
    for host in (f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", f"127.0.0.1.evil.example:{port}", ""):
        status, data, _ = client.ask("/", headers={"Host": host})
        assert status == 403 and b"only for http://127.0.0.1" in data
    with socket.create_connection(("127.0.0.1", port)) as raw:  # none at all, and two
        raw.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert raw.recv(64).startswith(b"HTTP/1.0 403")
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(f"GET / HTTP/1.0\r\nHost: {client.host}\r\nHost: evil.example\r\n\r\n".encode())
        assert raw.recv(64).startswith(b"HTTP/1.0 403")
    assert client.server.server_address[0] == "127.0.0.1"


def test_pages_of_other_origins_may_send_nothing(client: Client, tmp_path: Path) -> None:
    data = photograph(tmp_path / "a.jpg").read_bytes()
    for origin in ("http://evil.example", "null", "https://" + client.host, "http://localhost:1", ""):
        assert client.ask("/photograph", data, {"Origin": origin}, name="a.jpg")[0] == 403
    localhost = f"localhost:{client.server.server_port}"
    headers = {"Host": localhost, "Origin": f"http://{localhost}"}
    assert client.ask("/photograph", data, headers, name="a.jpg")[0] == 200


def test_sizes_are_limited(client: Client) -> None:
    for length, status in (("67108865", 413), ("-1", 411), ("x", 411), ("9" * 30, 413), ("²", 411)):
        with socket.create_connection(("127.0.0.1", client.server.server_port)) as raw:
            head = f"POST /photograph?name=a.png HTTP/1.0\r\nHost: {client.host}\r\nOrigin: http://{client.host}\r\n"
            raw.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
            assert raw.makefile("rb").readline().split()[1] == str(status).encode()
    assert "20000 x 20000 pixels, more than" in client.error("/photograph", huge_png(), name="huge.png")
    thin = cv2.imencode(".png", np.zeros((2, 40_000), np.uint8))[1].tobytes()
    assert "thin.png: the image has 40000 x 2 pixels" in client.error("/photograph", thin, name="thin.png")


def test_bad_files_are_told_in_a_line(client: Client, tmp_path: Path) -> None:
    photo = photograph(tmp_path / "photo.jpg")
    data = photo.read_bytes()
    assert (
        client.error("/photograph", b"no image", name="a.jpg")
        == "a.jpg: the file is no image, or cut short; replace it"
    )
    assert "is empty" in client.error("/photograph", b"", name="a.jpg")
    for name in ("", "..", "a/..", "a\0b"):
        assert "no name of a file" in client.error("/photograph", data, name=name)
    key = client.add(photo)["id"]
    small = cv2.imencode(".png", np.zeros((5, 7), np.uint8))[1].tobytes()
    masks = {
        "small.png": (small, "small.png: the mask is 7 x 5 pixels, its image 240 x 180; correct one of them"),
        "broken.json": (b"{", "broken.json: not valid JSON, line 1"),
        "other.json": (b'{"a": 1}', "other.json: is JSON, but no masks"),
        "words.txt": (b"hello", "words.txt: is of no kind of masks that is known"),
        "many.json": (b'[{"image_id": 1, "segmentation": []}, {"image_id": 2, "segmentation": []}]', "on the command"),
    }
    for name, (mask, message) in masks.items():
        assert message in client.error("/masks", mask, id=key, name=name, alone=1)
    ring = [*DRAWN.items()]
    for objects, message in [
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"{}", "must be a list"),
        (b"[3]", "object 1: has no list of rings"),
        (json.dumps([{**dict(ring), "rings": [[1, 2, 3, 4]]}]).encode(), "object 1: a polygon must be a flat list"),
        (json.dumps([{**dict(ring), "rings": [[1, 2, 3, 4, 5, 1e9]]}]).encode(), "image sizes away"),
        (json.dumps([{**dict(ring), "rings": [[1, 2, 3, 4, 5, "a"]]}]).encode(), "no number"),
        (json.dumps([{**dict(ring), "name": 3, "rings": []}]).encode(), "object 1: its name is 3"),
    ]:
        assert message in client.error("/refine", objects, id=key)
        assert message in client.error("/download", objects, id=key, kind="coco")
    assert "a download is one of coco, svg, png" in client.error("/download", b"[]", id=key, kind="exe")
    assert client.ask("/refine", b"[]", id="unknown")[0] == 410
    assert client.ask("/elsewhere", b"[]")[0] == 404


def test_a_drawn_outline_snaps_to_a_drawn_object(trained: Client, tmp_path: Path) -> None:
    told = trained.add(photograph(tmp_path / "photo.jpg"))
    assert (told["width"], told["height"], told["name"]) == (W, H, "photo.jpg")
    [found] = trained.told("/refine", [{**DRAWN, "rings": [ROUGH.ravel().tolist()]}], id=told["id"])
    assert found["before"] == [ROUGH.ravel().tolist()] and "% changed (IoU 0." in found["change"]
    before, after = (
        rings_to_masks([[np.array(ring).reshape(-1, 2) for ring in found[key]]], H, W)[0] for key in ("before", "after")
    )
    assert iou(before, DISC) < 0.8 and iou(after, DISC) > 0.9
    [again] = trained.told("/refine", [{**DRAWN, "rings": found["after"]}], id=told["id"])
    assert again["before"] == found["after"]


def test_downloads_are_what_the_command_writes(
    trained: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks with a class, a score, a hole, many objects and nothing inside; and a name that no ASCII holds."""
    monkeypatch.chdir(tmp_path)
    photo = photograph(Path("kafé ☕.jpg"))
    outline = [ROUGH.ravel().tolist()]
    hole = coco_mask.encode(np.asfortranarray(DISC & (np.hypot(COLUMNS - 100, ROWS - 90) > 20), np.uint8))
    entries = [
        {"segmentation": outline, "category_id": 7, "score": 0.25},
        {"segmentation": outline, "category_id": 8, "iscrowd": 1},
        {"segmentation": {"size": [H, W], "counts": hole["counts"].decode()}},
        {"segmentation": []},
    ]
    Path("m.json").write_text(json.dumps(entries))
    refine_files(load_refiner, photo, ["m.json"])
    key = trained.add(photo)["id"]
    told = trained.told("/masks", Path("m.json").read_bytes(), id=key, name="m.json", alone=1)
    assert told["notes"] == ["m.json: 4 objects (a list of masks; 1 with iscrowd 1, kept as given)"]
    assert told["photograph"] is None
    sent = [
        {key: value for key, value in one.items() if key in page_work.FIELDS} | {"rings": one["after"]}
        for one in told["objects"]
    ]
    for kind, media in page_work.DOWNLOADS.items():
        ending = FORMATS[kind][0]
        status, data, headers = trained.ask("/download", json.dumps(sent).encode(), id=key, kind=kind)
        assert status == 200 and headers["Content-Type"] == media
        assert headers["Content-Disposition"] == f"attachment; filename*=UTF-8''{quote('kafé ☕' + ending)}"
        assert data == Path("kafé ☕_sharp", f"kafé ☕{ending}").read_bytes()


@pytest.mark.parametrize("orientation", [1, 6])
def test_photographs_are_shown_and_refined_upright(client: Client, tmp_path: Path, orientation: int) -> None:
    told = client.add(photograph(tmp_path / "photo.jpg", orientation))
    size = (W, H) if orientation == 1 else (H, W)
    assert (told["width"], told["height"]) == size
    shown = cv2.imdecode(np.frombuffer(client.ask("/photograph", id=told["id"])[1], np.uint8), cv2.IMREAD_COLOR)
    upright = DISC if orientation == 1 else np.rot90(DISC, -1)
    assert ((shown[..., 2] > 130) == upright).mean() > 0.99
    for mask, alone, turned in ((upright, 0, False), (DISC, 1, orientation == 6)):
        data = cv2.imencode(".png", mask * np.uint8(255))[1].tobytes()
        answer = client.told("/masks", data, id=told["id"], name="m.png", alone=alone)
        assert bool(answer["photograph"]) == turned
    if orientation == 6:  # as stored, since the mask fits only so; but not beneath other objects
        assert (answer["photograph"]["width"], answer["photograph"]["height"]) == (W, H)
        assert answer["notes"][0].startswith("photo.jpg: taken as stored")
        assert "the mask is 240 x 180" in client.error("/masks", data, id=told["id"], name="m.png", alone=0)


def test_the_last_few_photographs_are_kept(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for client in served(weights):
        photo = photograph(tmp_path / "photo.jpg")
        keys = [client.add(photo)["id"] for _ in range(page_work.KEPT)]
        assert len(set(keys)) == page_work.KEPT and client.ask("/photograph", id=keys[0])[0] == 200
        client.add(photo)
        assert [client.ask("/photograph", id=key)[0] for key in keys[:2]] == [200, 410]  # the first was used last
        monkeypatch.setattr(page_work, "KEPT_BYTES", 1)
        last = client.add(photo)["id"]
        assert [client.ask("/photograph", id=key)[0] for key in (keys[0], last)] == [410, 200]


def test_one_refinement_runs_at_a_time_and_after_loading(tmp_path: Path) -> None:
    loaded, running, most = Event(), [0], [0]

    class Slow:
        def refine(self, image: Any, masks: Any) -> Any:
            running[0] += 1
            most[0] = max(most[0], running[0])
            Event().wait(0.05)
            running[0] -= 1
            raise InputError("seen")

    def load() -> Any:
        loaded.wait(30)
        return Slow()

    server = PageServer(load, 0)
    Thread(target=server.serve_forever).start()
    client = Client(server)
    assert json.loads(client.ask("/about")[1])["ready"] is False and client.ask("/")[0] == 200
    key = client.add(photograph(tmp_path / "photo.jpg"))["id"]  # shows before the refiner is there
    objects = json.dumps([{**DRAWN, "rings": [ROUGH.ravel().tolist()]}]).encode()
    answers: list[str] = []
    threads = [Thread(target=lambda: answers.append(client.error("/refine", objects, id=key))) for _ in range(4)]
    for thread in threads:
        thread.start()
    loaded.set()
    for thread in threads:
        thread.join()
    assert answers == 4 * ["seen"] and most == [1] and json.loads(client.ask("/about")[1])["ready"] is True
    server.shutdown()
    server.work.close()
    server.server_close()


def test_a_defect_leaves_the_page_usable(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def refine(self, image: Any, masks: Any) -> Any:
            raise RuntimeError("a defect")

    server = PageServer(Broken, 0)
    Thread(target=server.serve_forever).start()
    client = Client(server)
    key = client.add(photograph(tmp_path / "photo.jpg"))["id"]
    objects = json.dumps([{**DRAWN, "rings": [ROUGH.ravel().tolist()]}]).encode()
    status, data, _ = client.ask("/refine", objects, id=key)
    assert status == 500 and b"a defect" not in data and "RuntimeError: a defect" in capfd.readouterr().err
    assert client.ask("/")[0] == 200
    server.shutdown()
    server.work.close()
    server.server_close()


def test_mistakes_end_the_command(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match=r"cannot be used .*; choose another with --port, 0 for any"):
            page.serve(["--no-browser", "--port", str(taken.getsockname()[1])])
    with pytest.raises(InputError, match="port 70000 cannot be used"):
        page.serve(["--no-browser", "--port", "70000"])
    with pytest.raises(InputError, match=r"none\.pt: no such file of weights"):
        page.serve(["--no-browser", "--port", "0", "--weights", str(tmp_path / "none.pt")])
    with pytest.raises(SystemExit):
        page.serve(["mask.png"])
    assert "sharpcontour ./page" in page.__doc__.replace("``", "")  # type: ignore[union-attr]


def test_it_opens_the_browser_and_ctrl_c_ends_it(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve_forever = PageServer.serve_forever
    addresses: list[str] = []
    opened: list[str] = []

    def interrupted(self: PageServer) -> None:
        addresses.append(self.address)
        Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
        serve_forever(self)

    monkeypatch.setattr(PageServer, "serve_forever", interrupted)
    monkeypatch.setattr(page.webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    arguments = ["page", "--port", "0", "--weights", str(weights), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["sharpcontour", *arguments])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background shells have it ignored
    try:
        with pytest.raises(SystemExit) as left:
            command.main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert not left.value.code and opened == addresses
    assert capsys.readouterr() == (f"{addresses[0]} (Ctrl-C ends it)\nended\n", "")
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", int(addresses[0].split(":")[2][:-1]))):
        pass


def test_a_photograph_called_page_is_still_reachable(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photograph(Path("page"))
    cv2.imwrite("m.png", DISC * np.uint8(255))
    monkeypatch.setattr(sys, "argv", ["sharpcontour", "./page", "m.png", "--weights", str(weights), "--device", "cpu"])
    with pytest.raises(SystemExit) as left:
        command.main()
    assert not left.value.code and Path("page_sharp/page.json").is_file()
