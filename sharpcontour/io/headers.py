"""What an image file says of itself before anything of it is decoded: its kind, and how many pixels it has.

A file of a few kilobytes may stand for billions of pixels, so sizes are looked at before memory is taken for them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

Size = tuple[int, int]
"""(height, width) in pixels, as stored: a rotation noted in EXIF is not followed."""

_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # brands of ISO/IEC 23008-12
LENGTH = 32  # bytes at the beginning of a file that tell its kind
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG markers of a frame's header
_ALONE = {0x01, *range(0xD0, 0xD9)}  # JPEG markers without a length
_NUMBER = re.compile(rb"\s+(?:#[^\n\r]*[\n\r]\s*)*(\d{1,9})(?=\s)")  # of a PNM header, comments before it


def is_image(beginning: bytes) -> bool:
    """Whether a file is of a kind that can be read, by its first :data:`LENGTH` bytes."""
    return _kind(beginning) is not None


def is_heic(beginning: bytes) -> bool:
    """Whether a file is a photograph in HEIC, which phones write and OpenCV does not read, by its first 64 bytes."""
    return beginning[4:8] == b"ftyp" and beginning[8:12] in _HEIC and b"avi" not in beginning[16:64]


def header_size(data: bytes) -> Size | None:
    """The size of an image in pixels.

    Args:
        data: the file.

    Returns:
        (height, width); None where it is no image, of a kind that is not known here, or ends within its header.
    """
    read = _kind(data)
    try:
        size = None if read is None else read(data)
    except (struct.error, IndexError, OverflowError):  # cut short, or pointing behind its end
        return None
    return size if size is not None and min(size) > 0 else None


def _kind(data: bytes) -> Callable[[bytes], Size | None] | None:
    return next((read for pattern, read in _KINDS if pattern.match(data)), None)


def _png(data: bytes) -> Size:
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _jpeg(data: bytes) -> Size | None:
    place = 2
    while place < len(data):
        if data[place] != 0xFF:  # decoders skip what stands between two segments
            place = data.find(b"\xff", place)
            if place < 0:
                return None
        marker = data[place + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return height, width
        if marker == 0xDA:  # pixels, and no header before them
            return None
        if marker in (0x00, 0xFF):
            place += 1
        else:
            place += 2 if marker in _ALONE else 2 + struct.unpack_from(">H", data, place + 2)[0]
    return None


def _bmp(data: bytes) -> Size:
    old = struct.unpack_from("<I", data, 14)[0] == 12
    width, height = struct.unpack_from("<hh" if old else "<ii", data, 18)
    return abs(height), abs(width)  # a negative height: rows from the top


def _gif(data: bytes) -> Size:
    width, height = struct.unpack_from("<HH", data, 6)
    return height, width


def _webp(data: bytes) -> Size | None:
    form = data[12:16]
    if form == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    if form == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if form == b"VP8X":
        width, height = (int.from_bytes(data[place : place + 3], "little") + 1 for place in (24, 27))
        return (height, width) if len(data) >= 30 else None
    return None


def _tiff(data: bytes) -> Size | None:
    found = _tiff_numbers(data)
    return (found[257], found[256]) if {256, 257} <= set(found) else None


def tiff_orientation(data: bytes) -> int:
    """The orientation of a TIFF, 1 to 8 as EXIF data count; 1, not turned, of other files."""
    try:
        found = _tiff_numbers(data).get(274, 1) if _kind(data) is _tiff else 1
    except (struct.error, IndexError, OverflowError):
        return 1
    return found if 1 <= found <= 8 else 1


def _tiff_numbers(data: bytes) -> dict[int, int]:
    """Width, height and orientation of a TIFF, by the numbers of their tags, 256, 257 and 274."""
    order = "<" if data[:1] == b"I" else ">"
    big = 43 in data[2:4]  # BigTIFF, with numbers of 64 bits
    offset = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), data, offset)[0]
    first, length, value = (offset + 8, 20, 12) if big else (offset + 2, 12, 8)
    found: dict[int, int] = {}
    for place in range(first, min(first + length * min(count, 4096), len(data)), length):
        tag, kind = struct.unpack_from(order + "HH", data, place)
        if tag in (256, 257, 274) and kind in (3, 4, 16):  # as numbers of 16, 32 or 64 bits
            found[tag] = struct.unpack_from(order + {3: "H", 4: "I", 16: "Q"}[kind], data, place + value)[0]
    return found


def _pnm(data: bytes) -> Size | None:
    width = _NUMBER.match(data, 2)
    height = _NUMBER.match(data, width.end()) if width else None
    return (int(height[1]), int(width[1])) if width and height else None


def _jpeg2000(data: bytes) -> Size | None:
    place = data.find(b"ihdr")
    height, width = struct.unpack_from(">II", data, place + 4)
    return (height, width) if place > 0 else None


def _avif(data: bytes) -> Size | None:
    # The whole image and the tiles that it may be made of have such a box each.
    sizes = [struct.unpack_from(">II", data, found.end() + 4) for found in re.finditer(b"ispe", data[:65536])]
    return max((height, width) for width, height in sizes) if sizes else None


def avif_turn(data: bytes) -> tuple[int, int | None]:
    """How an AVIF is to be turned to be upright: by so many quarters to the left, then mirrored along an axis or not.

    The axis is that of the array, 0 to exchange top and bottom and 1 to exchange left and right; (0, None) for other
    files (ISO/IEC 23008-12, "irot" and "imir").
    """
    if _kind(data) is not _avif:
        return 0, None
    head = data[:65536]
    turn, mirror = (re.search(name + b"(.)", head, re.DOTALL) for name in (b"irot", b"imir"))
    return (turn[1][0] & 3 if turn else 0), (mirror[1][0] & 1 if mirror else None)


_KINDS: list[tuple[re.Pattern[bytes], Callable[[bytes], Size | None]]] = [
    (re.compile(pattern, re.DOTALL), read)
    for pattern, read in (
        (rb"\xff\xd8\xff", _jpeg),
        (rb"\x89PNG\r\n\x1a\n", _png),
        (rb"BM", _bmp),
        (rb"GIF8[79]a", _gif),
        (rb"RIFF....WEBP", _webp),
        (rb"II[*+]\0|MM\0[*+]", _tiff),
        (rb"P[1-6]\s", _pnm),
        (rb"\0\0\0\x0cjP  \r\n\x87\n", _jpeg2000),
        (rb"....ftypavi[fs]", _avif),
    )
]
