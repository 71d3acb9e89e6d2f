"""Label Studio's run lengths of brush masks.

They are those of the package rle-pack (thi-ng/umbrella, packages/rle-pack), as Label Studio's converter describes them
(HumanSignal/label-studio-converter, label_studio_converter/brush.py): a list of bytes, read as bits from the highest
on. 32 bits: how many values there are; 5 bits: bits of a value less one; four times 4 bits: the sizes of lengths less
one. Then, until there are as many values: 1 bit, 2 bits that choose a size of length, a length less one; after a 1 one
value that is repeated, after a 0 as many values. The values are a picture (height, width, 4) of red, green, blue and
alpha, and an object is where alpha is not 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_WORD = 8  # bits of a value
_SIZES = (3, 4, 8, 16)  # bits of a length, as Label Studio itself writes them
_CHANNELS = 4


def encode_brush(inside: np.ndarray) -> list[int]:
    """The bytes of a mask (H, W) of bool: all channels are 255 inside and 0 outside."""
    flat = inside.ravel()
    begins = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1]) if len(flat) else np.zeros(0, int)
    lengths = np.diff(begins, append=len(flat)) * _CHANNELS
    bits = [f"{len(flat) * _CHANNELS:032b}{_WORD - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for length, value in zip(lengths.tolist(), flat[begins].tolist(), strict=True):
        word = "1" * _WORD if value else "0" * _WORD
        while length > 0:
            part = min(length, 2 ** _SIZES[-1])
            choice = next(k for k, size in enumerate(_SIZES) if part <= 2**size)
            bits.append(f"1{choice:02b}{part - 1:0{_SIZES[choice]}b}{word}")
            length -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def decode_brush(data: Sequence[int], height: int, width: int) -> np.ndarray:
    """The mask (height, width) of bool of such bytes.

    Raises:
        ValueError: with the reason, where they are broken or of another size.
    """
    try:
        values = np.array(data, np.int64)
        if ((values < 0) | (values > 255)).any():
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError("its 'rle' is no list of whole numbers from 0 to 255") from None
    packed = values.astype(np.uint8)
    if packed.ndim != 1 or len(packed) < 7:
        raise ValueError("its 'rle' is cut short")
    bits = np.unpackbits(packed)
    text = (bits + ord("0")).tobytes().decode("ascii")
    if int(text[:32], 2) != height * width * _CHANNELS:
        raise ValueError(f"its 'rle' holds {int(text[:32], 2)} values, {_CHANNELS} x {width} x {height} are needed")
    if int(text[32:37], 2) + 1 != _WORD:
        raise ValueError(f"its 'rle' has values of {int(text[32:37], 2) + 1} bits, not {_WORD}")
    sizes = [int(text[place : place + 4], 2) + 1 for place in range(37, 53, 4)]
    return _unpack(bits, text, 53, sizes, height * width * _CHANNELS).reshape(height, width, _CHANNELS)[..., 3] > 0


def _unpack(bits: np.ndarray, text: str, place: int, sizes: Sequence[int], count: int) -> np.ndarray:
    """``count`` values (uint8) from bit ``place`` on."""
    values, done = np.zeros(count, np.uint8), 0
    while done < count:
        size = sizes[int(text[place + 1 : place + 3] or "0", 2)]
        begin = place + 3 + size
        length = int(text[place + 3 : begin] or "0", 2) + 1
        repeated = text[place : place + 1] == "1"
        place = begin + _WORD * (1 if repeated else length)
        if place > len(text) or done + length > count:
            raise ValueError("its 'rle' is cut short, or damaged")
        words = np.packbits(bits[begin:place])
        values[done : done + length] = words[0] if repeated else words
        done += length
    return values
