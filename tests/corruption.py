"""Objects that did not come whole: cut, shortened, with wrong lengths, with bytes of their structure changed.

Each is made so that it cannot be whole; a change of pixel values alone, which nobody can know, is none of them.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless

from tests.ct_series import ct_slice, encoded

OTHER_SYNTAX: Final = "another transfer syntax"
LONG: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV", b"OV"})


@dataclass(frozen=True, slots=True)
class Corrupted:
    """One object that is not whole."""

    kind: str
    content: bytes
    syntax: str


@dataclass(frozen=True, slots=True)
class Element:
    """Where an element of the outermost level lies."""

    start: int
    length_at: int
    length_form: str
    value: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.value


def objects() -> dict[str, bytes]:
    """Give a whole slice in each transfer syntax, with a sequence, by the name of the syntax."""
    whole = {syntax: encoded(_slice(), syntax) for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)}
    compressed = _slice()
    compressed.PixelData = encapsulate([b"\xff\xd8" + b"\1\2" * 50, b"\3\4" * 40])
    compressed["PixelData"].VR, compressed["PixelData"].is_undefined_length = "OB", True
    return {str(one): content for one, content in whole.items()} | {str(JPEGLSLossless): encoded(compressed)}


def _slice() -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-A0100", "SRT", "Brain"
    ds = ct_slice(1)
    ds.AnatomicRegionSequence = [code]
    ds.ContrastBolusAgentSequence = [code, code]
    ds["ContrastBolusAgentSequence"].is_undefined_length = True
    for item in ds.ContrastBolusAgentSequence:
        item.is_undefined_length_sequence_item = True
    return ds


def elements_of(content: bytes, syntax: str) -> list[Element]:
    """List the elements of the outermost level, by the rules of PS3.5 7.1; an undefined length ends the list."""
    found, at = [], 0
    while at + 8 <= len(content):
        length_at, form = at + 4, "<L"
        if syntax != ImplicitVRLittleEndian:
            vr = content[at + 4 : at + 6]
            length_at, form = (at + 8, "<L") if vr in LONG else (at + 6, "<H")
        (length,) = struct.unpack_from(form, content, length_at)
        value = length_at + struct.calcsize(form)
        end = value + length
        if length == 0xFFFFFFFF:
            delimiter = content.index(b"\xfe\xff\xdd\xe0", value) + 8
            end = delimiter
        found.append(Element(at, length_at, form, value, end))
        at = end
    return found


def corrupted(seed: int, count: int) -> Iterator[Corrupted]:
    """Give so many objects that are not whole, of every kind in turn."""
    chance = random.Random(seed)
    whole = list(objects().items())
    kinds = list(KINDS.items())
    for number in range(count):
        name, change = kinds[number % len(kinds)]
        syntax, content = whole[chance.randrange(len(whole))]
        changed = change(content, syntax, chance)
        if changed is not None and (changed != content or name == OTHER_SYNTAX):
            yield Corrupted(name, changed, _presented_as(name, syntax, chance))


def _presented_as(kind: str, syntax: str, chance: random.Random) -> str:
    if kind != OTHER_SYNTAX:
        return syntax
    native = {str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian), str(ExplicitVRBigEndian)}
    others = sorted(native - {syntax}) if syntax in native else [str(ImplicitVRLittleEndian), str(ExplicitVRBigEndian)]
    return chance.choice(others)


# ------------------------------------------------------------------------------------------- kinds of damage


def _cut_anywhere(content: bytes, _syntax: str, chance: random.Random) -> bytes:
    return content[: chance.randrange(1, len(content))]


def _cut_between_elements(content: bytes, syntax: str, chance: random.Random) -> bytes:
    return content[: chance.choice(elements_of(content, syntax)[:-1]).end]


def _cut_near_the_end(content: bytes, _syntax: str, chance: random.Random) -> bytes:
    return content[: -chance.randrange(1, 40)]


def _pixels_shorter(content: bytes, syntax: str, chance: random.Random) -> bytes | None:
    """PixelData short by 1 byte, 1, 2, 50 or 100 %, and its length says so."""
    pixels = elements_of(content, syntax)[-1]
    if syntax == JPEGLSLossless:
        return None
    part = chance.choice([1 / pixels.length, 0.01, 0.02, 0.5, 1.0])
    left = pixels.length - max(1, int(part * pixels.length))
    length = struct.pack(pixels.length_form, left)
    return content[: pixels.length_at] + length + content[pixels.value : pixels.value + left]


def _wrong_length(content: bytes, syntax: str, chance: random.Random) -> bytes:
    """The length of one element is another; what follows is met in the middle."""
    one = chance.choice(elements_of(content, syntax))
    most = 0xFFFF if one.length_form == "<H" else 0xFFFFFFFE
    other = chance.choice([one.length + 1, one.length + 2, one.length - 1, one.length - 2, one.length * 256, most])
    return _with_length(content, one, min(max(other, 0), most))


def _lengths_swapped(content: bytes, syntax: str, chance: random.Random) -> bytes:
    one = chance.choice([one for one in elements_of(content, syntax) if one.length])
    swapped = content[one.length_at : one.value][::-1]
    return content[: one.length_at] + swapped + content[one.value :]


def _bytes_swapped_from(content: bytes, syntax: str, chance: random.Random) -> bytes:
    """From one element on every two bytes are swapped, as by a faulty change of byte order."""
    at = chance.choice(elements_of(content, syntax)).start
    rest = bytearray(content[at:])
    rest[0::2], rest[1::2] = rest[1::2], rest[0 : len(rest) - len(rest) % 2 : 2]
    return content[:at] + bytes(rest)


def _piece_missing(content: bytes, syntax: str, chance: random.Random) -> bytes | None:
    """A piece of the middle never came; those by chance with whole elements on both sides are left out."""
    length = chance.randrange(1, 64)
    at = chance.randrange(0, elements_of(content, syntax)[-1].value)
    changed = content[:at] + content[at + length :]
    return None if _looks_whole(changed, syntax) else changed


def _piece_doubled(content: bytes, syntax: str, chance: random.Random) -> bytes | None:
    length = chance.randrange(1, 64)
    at = chance.randrange(0, elements_of(content, syntax)[-1].start)
    changed = content[: at + length] + content[at:]
    return None if _looks_whole(changed, syntax) else changed


def _looks_whole(content: bytes, syntax: str) -> bool:
    """Say whether elements in ascending order fill it, with the image's pixel data as the last."""
    try:
        elements = elements_of(content, syntax)
    except (struct.error, ValueError):
        return False
    tags = [struct.unpack_from("<HH", content, one.start) for one in elements]
    return tags == sorted(set(tags)) and tags[-1] == (0x7FE0, 0x0010) and elements[-1].end == len(content)


def _zeros(content: bytes, syntax: str, chance: random.Random) -> bytes:
    """A piece of the structure is zeros, as where a block of a disk was lost."""
    one = chance.choice(elements_of(content, syntax))
    return content[: one.start] + bytes(one.value - one.start) + content[one.value :]


def _something_behind(content: bytes, _syntax: str, chance: random.Random) -> bytes:
    return content + chance.randbytes(chance.randrange(1, 40))


def _as_it_is(content: bytes, _syntax: str, chance: random.Random) -> bytes:
    return content


def _fragments_damaged(content: bytes, syntax: str, chance: random.Random) -> bytes | None:
    if syntax != JPEGLSLossless:
        return None
    pixels = elements_of(content, syntax)[-1]
    items = [at for at in range(pixels.value, pixels.end - 3) if content[at : at + 4] == b"\xfe\xff\x00\xe0"]
    at = chance.choice(items)
    changed = chance.choice([b"\xfe\xff\x00\xe1", b"\xff\xfe\xe0\x00"])
    if chance.random() < 0.5:
        return content[:at] + changed + content[at + 4 :]
    (length,) = struct.unpack_from("<L", content, at + 4)
    other = chance.choice([length + 2, max(length - 2, 0) or 2, 0xFFFFFFFF, length * 256 + 6])
    return content[: at + 4] + struct.pack("<L", other) + content[at + 8 :]


def _with_length(content: bytes, one: Element, length: int) -> bytes:
    return content[: one.length_at] + struct.pack(one.length_form, length) + content[one.value :]


KINDS: Final[dict[str, Callable[[bytes, str, random.Random], bytes | None]]] = {
    "cut anywhere": _cut_anywhere,
    "cut between elements": _cut_between_elements,
    "cut near the end": _cut_near_the_end,
    "pixel data shorter": _pixels_shorter,
    "wrong length": _wrong_length,
    "length bytes swapped": _lengths_swapped,
    "bytes swapped from an element on": _bytes_swapped_from,
    "a piece missing": _piece_missing,
    "a piece doubled": _piece_doubled,
    "zeros for a tag": _zeros,
    "something behind it": _something_behind,
    OTHER_SYNTAX: _as_it_is,
    "fragments damaged": _fragments_damaged,
}


NASTY: Final = (
    "\x1b[2J\x1b]0;x\x07\x1b]52;c;cm0gLXJm\x07",
    'a\r\n{"event": "forged", "level": "ERROR"}',
    "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>",
    "'; DROP TABLE instance; --",
    '" OR 1=1 --',
    "OBX|1|ST|forged||x\rOBX|2^&~\\F\\\\X0D\\",
    "=cmd|'/c calc'!A1",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "${jndi:ldap://127.0.0.1/x}",
    "{{ 7 * 7 }}{% for x in y %}",
    "[red]not ours[/red][/][link=file:///etc/passwd]x[/link]",
    "\u202egnp.exe\u2066\u2028\u2029\x85",
    "%s%n%x{0}{event}",
    "$(touch /tmp/x)`id`; rm -rf ~ | cat",
    "../../../../etc/passwd",
    "\0\x01\x02\x7f\x80\x9b31m",
    "Bcc: x@example.org\r\nSubject: forged\r\n\r\nbody",
    "\ud7ff\ue000\uffff\U0001f9e0" * 3,
    "A" * 70 + "^B^C=\u5c71\u7530^\u592a\u90ce=\u3084\u307e\u3060",
)
"""Texts that mean something to a terminal, a log, a browser, a database, HL7, a spreadsheet, a shell or a mail."""
