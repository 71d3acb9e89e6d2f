"""XML in: parsed without entities, without anything from elsewhere, and only as deep as real files go."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from sharpcontour.errors import InputError

MOST_BYTES = 2**28
DEPTH = 200  # elements inside one another
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # characters that XML cannot hold


def read_xml(path: Path) -> Element:
    """The root of an XML file; names are those without their namespace.

    Raises:
        InputError: where it cannot be read, is not XML (with line and column), is nested too deeply, or defines
            entities, with which a short file can stand for one that no memory holds.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > MOST_BYTES:
        raise InputError(f"{path}: has more than the {MOST_BYTES} bytes that are read; split it")
    builder, depth = TreeBuilder(), 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEPTH:
            raise InputError(f"{path}: its elements are nested too deeply; save it again")
        builder.start(_local(tag), {_local(name): value for name, value in attributes.items()})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_local(tag))

    def refuse(*_: object) -> None:
        raise InputError(f"{path}: defines entities, which are not read since they can grow without end; save it anew")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except expat.ExpatError as error:
        what = expat.ErrorString(error.code)
        raise InputError(f"{path}: not valid XML, line {error.lineno} column {error.offset + 1}: {what}") from None
    except InputError:
        raise
    except (LookupError, ValueError) as error:  # an encoding that is not known, or not allowed
        raise InputError(f"{path}: not valid XML ({error}); save it in UTF-8") from None


def text_for_xml(value: str) -> str:
    """Text that XML can hold; what it cannot, such as bytes of a name that is not UTF-8, becomes question marks."""
    return _NO_XML.sub("?", value)


def _local(name: str) -> str:
    return name.rpartition(" ")[2]
