"""The command ``sharpcontour page``: a page on this computer to draw rough outlines on photographs, and to refine them.

    sharpcontour page

Open the address that is printed in a browser on the same computer, drop a photograph on the page, and draw around its
objects. Photographs do not leave the computer. Ctrl-C ends it. A photograph that is called "page" is refined with
``sharpcontour ./page mask.png``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import traceback
import webbrowser
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PureWindowsPath
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

from sharpcontour.app.page_work import MOST_PIXELS, GoneError, Work
from sharpcontour.errors import InputError
from sharpcontour.io.command_line import add_device, add_zoom
from sharpcontour.io.device import choose_device
from sharpcontour.pictures.panels import PALETTE

if TYPE_CHECKING:
    from sharpcontour.anymask.refiner import MaskRefinerLike

PORT = 8765
MOST_BYTES = 64 * 2**20  # of a file, or of the objects that the page sends
WEB = Path(__file__).with_name("web")
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/controls.js": ("controls.js", "text/javascript; charset=utf-8"),
    "/canvas.js": ("canvas.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
JSON = "application/json"


class RefusedError(Exception):
    """A request that is answered with an HTTP status and a message.

    Args:
        status: of HTTP.
        message: for the page.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class PageServer(ThreadingHTTPServer):
    """Serves the page on 127.0.0.1; it listens once it is made, and answers in ``serve_forever``.

    Args:
        load: loads the refiner; called at once, in the background. Where it fails, the server ends.
        port: to listen on; 0: any free one.

    Attributes:
        address: of the page, as a browser takes it.
        hosts: what the Host header of a request may be: a page from elsewhere, whose name was made to point here, has
            another one.

    Raises:
        InputError: where the port is taken or not allowed.
    """

    allow_reuse_address = os.name == "posix"  # elsewhere two servers could share a port

    def __init__(self, load: Callable[[], MaskRefinerLike], port: int) -> None:
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"port {port} cannot be used ({reason}); choose another with --port, 0 for any") from None
        suffix = "" if self.server_port == 80 else f":{self.server_port}"
        self.hosts = {name + suffix for name in ("127.0.0.1", "localhost", "[::1]")}
        self.address = f"http://127.0.0.1{suffix}/"
        self.work = Work(load, lambda: Thread(target=self.shutdown, daemon=True).start())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes a connection early is no error."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "sharpcontour", ""
    timeout = 60  # seconds for a request to arrive

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not printed."""

    def _answer(self, work: Callable[[str, dict[str, str]], None]) -> None:
        """Check who asks, and tell in JSON what went wrong."""
        try:
            if self.headers.get_all("Host", []) not in [[host] for host in self.server.hosts]:
                raise RefusedError(403, f"refused: this page is only for {self.server.address}")
            address = _address(self.path)
            work(address.path, {name: values[0] for name, values in parse_qs(address.query).items()})
        except RefusedError as error:
            self._fail(error.status, str(error))
        except InputError as error:
            self._fail(410 if isinstance(error, GoneError) else 422, str(error))
        except (ConnectionError, TimeoutError):
            raise
        except CancelledError:
            self._fail(503, "the page has ended")
        except MemoryError:
            self._fail(422, "there is not enough memory for this; try a smaller photograph")
        except Exception:  # a defect of ours: the page stays usable
            traceback.print_exc()
            self._fail(500, "this failed, and should not have; the terminal tells more")

    def _get(self, path: str, query: dict[str, str]) -> None:
        if path in FILES:
            name, kind = FILES[path]
            self._send((WEB / name).read_bytes(), kind)
        elif path == "/about":
            ready = self.server.work.refiner.done()
            self._send_json({"ready": ready, "bytes": MOST_BYTES, "pixels": MOST_PIXELS, "palette": PALETTE})
        elif path == "/photograph":
            self._send(self.server.work.photograph(query.get("id", "")).shown, "image/jpeg")
        else:
            raise RefusedError(404, f"there is no {path:.80} here")

    def _post(self, path: str, query: dict[str, str]) -> None:
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            raise RefusedError(403, "refused: sent by another page")
        key, work = query.get("id", ""), self.server.work
        if path == "/photograph":
            self._send_json(work.add_photograph(_file_name(query), self._body()))
        elif path == "/masks":
            self._send_json(work.add_masks(key, _file_name(query), self._body(), query.get("alone") == "1"))
        elif path == "/refine":
            self._send_json(work.refine(key, _objects(self._body())))
        elif path == "/download":
            name, kind, data = work.download(key, query.get("kind", ""), _objects(self._body()))
            self._send(data, kind, {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}"})
        else:
            raise RefusedError(404, f"there is no {path:.80} here")

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise RefusedError(411, "a request must tell its length")
        if int(length) > MOST_BYTES:
            raise RefusedError(413, f"more than {MOST_BYTES >> 20} MiB; make the file smaller")
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            raise RefusedError(400, "the request is cut short")
        return data

    def _send_json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), JSON)

    def _fail(self, status: int, message: str) -> None:
        self._send(json.dumps({"error": message}).encode(), JSON, status=status)

    def _send(self, data: bytes, kind: str, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        sent = {**HEADERS, "Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _address(path: str) -> SplitResult:
    try:
        return urlsplit(path)
    except ValueError:
        raise RefusedError(400, "this is no address") from None


def _file_name(query: dict[str, str]) -> str:
    """The name of a file that is sent, without folders."""
    name = PureWindowsPath(query.get("name", "")).name  # knows both slashes
    if not name or name == ".." or "\0" in name:
        raise InputError(f"{name!r:.80}: is no name of a file; rename it")
    return name


def _objects(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise InputError("the objects are not valid JSON") from None


def serve(arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C.

    Args:
        arguments: of the command line, behind "page".

    Returns:
        The exit code.

    Raises:
        InputError: where the port cannot be used, or the refiner cannot be loaded.
    """
    args = parse_arguments(arguments)

    def load() -> MaskRefinerLike:
        from sharpcontour.anymask.refiner import load_refiner  # takes seconds, while the page already shows

        return load_refiner(args.weights, choose_device(args.device), args.zoom)

    with PageServer(load, args.port) as server:
        with contextlib.suppress(KeyboardInterrupt):
            print(f"{server.address} (Ctrl-C ends it)", flush=True)
            if args.browser and _has_windows():
                webbrowser.open(server.address)
            server.serve_forever()
        server.work.close()
        if not server.work.refiner.cancelled():
            server.work.refiner.result()  # raises what ended the server
    print("ended")
    return 0


def _has_windows() -> bool:
    """Whether a browser would open in a window: one in the terminal would take the place of this command."""
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return os.name != "posix" or sys.platform == "darwin" or bool(shown)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of ``sharpcontour page``."""
    parser = argparse.ArgumentParser(
        prog="sharpcontour page", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--port", type=int, default=PORT, help="to serve on, 0 for any that is free (default: %(default)s)")
    add("--no-browser", dest="browser", action="store_false", help="only print the address")
    add("--weights", metavar="FILE", help="of another refiner (default: that of the package)")
    add_zoom(parser)
    add_device(parser)
    return parser.parse_args(arguments)
