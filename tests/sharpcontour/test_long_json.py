"""JSON read in pieces gives what the json module gives of the whole, for right files and for broken ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharpcontour.errors import InputError
from sharpcontour.io import long_json
from sharpcontour.io.files import read_json
from sharpcontour.io.long_json import LongList, read_long_json

ODD = [
    '{"a": [{"x": 1}, {"x": [2, {"y": []}]}, {"z": "}],[{"}], "b": [1, 2, 3], "c": {"d": [4, [5]]}, "e": null}',
    '{"a": [{"s": "\\"]},{\\\\"}, {"s": "\\\\\\\\\\""}, {"t": "\\u20ac \u20ac \\ud800"}], "a\\"[": [[1], [], [{}]]}',
    '\n{\t"a" :\r\n [ {"x": NaN} ,\n\n {"x": -Infinity}\n ]\n , "b" : [ ] }\n ',
    '{"a": [{"x": 1}, {"x": 2}], "b": 0, "a": [{"x": 3}, {"x": 4}]}',
    '{"a": [{"x": 1}, "text", 5, null, [6, 7], {"x": 2}, true], "b": [[[[1]]], [[]]]}',
    '[{"x": 1}, [2, [3]], {"y": [4]}]',
    "[[1, 2], [3, 4]]",
    '"text"',
    "{}",
    "",
]
BROKEN = '{"b": [1, "], [" ], "a": [{"x": [1, -2.5]}, {"y\\"": "\u20ac"},\n{}], "c": {"d": []}}'


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_json, "LARGE", 0)


def whole(path: Path) -> Any:
    """What ``read_long_json`` gives, with all pieces of its lists."""
    data = read_long_json(path, "test")
    if not isinstance(data, dict):
        return data
    return {
        key: [one for part in value.parts() for one in part] if isinstance(value, LongList) else value
        for key, value in data.items()
    }


def outcome(read: Callable[[], Any]) -> str:
    try:
        return repr(read())
    except InputError as error:
        return f"error: {error}"


@pytest.mark.parametrize("piece", [1, 5, 23, 1000])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_odd_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, encoding: str) -> None:
    monkeypatch.setattr(long_json, "PIECE", piece)
    for text in ODD:
        for compress in (bytes, gzip.compress):
            path = tmp_path / "file.json"
            path.write_bytes(compress(text.encode(encoding)))
            assert outcome(lambda: whole(path)) == outcome(lambda: read_json(path, "test")), text  # noqa: B023


def test_broken_files_say_what_they_say_when_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_json, "PIECE", 24)
    path, data = tmp_path / "file.json", BROKEN.encode()
    changed = [data[:k] for k in range(len(data))]
    for k in range(0, len(data), 2):
        changed += [
            data[:k] + new + data[k + 1 :] for new in (b",", b"]", b"}", b"[", b"{", b'"', b"\\", b"1", b"\xff")
        ]
        changed += [data[:k] + new + data[k:] for new in (b",", b"}")]
    told = set()
    for one in changed:
        path.write_bytes(one)
        wanted = outcome(lambda: read_json(path, "test"))
        assert outcome(lambda: whole(path)) == wanted, one
        told.add(wanted[:6])
    assert len(told) > 1  # some are right all the same


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name, data in (("cut.gz", gzip.compress(b'{"a": [1]}')[:-9]), ("no.gz", b"\x1f\x8b"), ("9.json", b"9" * 5000)):
        (tmp_path / name).write_bytes(data)
        assert outcome(lambda: whole(tmp_path / name)) == outcome(lambda: read_json(tmp_path / name, "test"))  # noqa: B023
    for path in (tmp_path / "none.json", tmp_path):
        assert outcome(lambda: whole(path)) == outcome(lambda: read_json(path, "test"))  # noqa: B023


def test_long_lists_are_cut_and_can_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_json, "PIECE", 200)
    entries = [{"id": k, "text": "[{" * (k % 3)} for k in range(100)]
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"short": [1], "long": entries, "other": {"id": entries}}))
    data = read_long_json(path)
    assert data["short"] == [1] and data["other"] == {"id": entries}
    for _ in range(2):
        parts = list(data["long"].parts())
        assert [one for part in parts for one in part] == entries and len(parts) > 10 and max(map(len, parts)) < 20


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_json, "PIECE", 50)
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"long": [{"id": k} for k in range(100)]}))
    data = read_long_json(path)
    path.write_text(json.dumps({"longer": [{"number": k} for k in range(100)]}))
    with pytest.raises(InputError, match="was changed while it was read; start again"):
        list(data["long"].parts())


def test_small_files_are_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_json, "LARGE", 1000)
    monkeypatch.setattr(long_json, "PIECE", 10)
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"long": [{"id": k} for k in range(50)]}))
    assert read_long_json(path) == json.loads(path.read_text())
