"""Objects that are whole and hostile: structures without measure, names that lead elsewhere."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from tests.ct_series import ct_slice, encoded


def element(group: int, number: int, vr: bytes, content: bytes) -> bytes:
    """An element in Explicit VR Little Endian (PS3.5 7.1.2)."""
    long = vr in (b"OB", b"SQ", b"UN", b"UT")
    length = struct.pack("<HL", 0, len(content)) if long else struct.pack("<H", len(content))
    return struct.pack("<HH", group, number) + vr + length + content


UNDEFINED = b"\xff\xff\xff\xff"
ITEM, ITEM_END, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"
OPEN_SEQUENCE = struct.pack("<HH", 0x0041, 0x1010) + b"SQ\0\0" + UNDEFINED


def inserted(what: bytes) -> bytes:
    """A whole slice with something before its pixel data."""
    whole = encoded(ct_slice(1))
    at = whole.index(b"\xe0\x7f\x10\x00OW")
    return whole[:at] + what + whole[at:]


STRUCTURES = {
    "3,000 levels": lambda: inserted((OPEN_SEQUENCE + ITEM + UNDEFINED) * 3000 + (ITEM_END + SEQUENCE_END) * 3000),
    "30,000 levels without an end": lambda: inserted((OPEN_SEQUENCE + ITEM + UNDEFINED) * 30000),
    "a million items": lambda: inserted(OPEN_SEQUENCE + (ITEM + bytes(4)) * 1_000_000 + SEQUENCE_END),
    "a million elements": lambda: inserted(
        b"".join(element(0x0043 + 2 * (n >> 16), n & 0xFFFF, b"LO", b"") for n in range(1_000_000))
    ),
}


PLACES = ("command set", "data set", "both", "study", "series")
_OBJECT = b"\x08\x00\x18\x00UI"
_TAGS = {
    "data set": (_OBJECT, "SOPInstanceUID"),
    "both": (_OBJECT, "SOPInstanceUID"),
    "study": (b"\x20\x00\x0d\x00UI", "StudyInstanceUID"),
    "series": (b"\x20\x00\x0e\x00UI", "SeriesInstanceUID"),
}


def traversals(count: int) -> list[bytes]:
    """Names that would leave a folder or mislead a database, a shell, a log or a terminal."""
    chance = random.Random(5)
    seeds = [
        *(b"../", b"..\\", b"/etc/passwd", b"C:\\", b"\\\\host\\share", b"%2e%2e%2f", b"..%c0%af", b"\0", b"~/", b"./"),
        *(b'\n{"event": "forged"}', b"\x1b[2J\x1b]0;x\x07", b"'; DROP TABLE instance; --", b'" OR 1=1 --', b"$(id)"),
        *(b"`id`", b"<script>alert(1)</script>", b"${jndi:ldap://x}", b"=cmd|'/c calc'!A1", "\u202e../".encode()),
        *("\uff0e\uff0e\uff0f".encode(), b"CON", b"NUL.txt", b"%s%n", b"1.2/../3", b"|rm", b"\r\nX: y", b"1" * 65),
        *(b"-rf", b"*", b"\x9b31m", b"\xe2\x80\xa8"),
    ]
    made = list(seeds)
    while len(made) < count:
        made.append(b"".join(chance.choice([*seeds, b"a"]) for _ in range(chance.randrange(1, 4)))[:200])
    return made[:count]


def ui_value(name: bytes) -> bytes:
    return name + b"\0" * (len(name) % 2)


def replaced(whole: bytes, tag: bytes, old: bytes, new: bytes) -> bytes:
    at = whole.index(tag)
    (length,) = struct.unpack_from("<H", whole, at + 6)
    assert whole[at + 8 : at + 8 + length].rstrip(b"\0") == old
    return whole[: at + 6] + struct.pack("<H", len(new)) + new + whole[at + 8 + length :]


def named_elsewhere(count: int) -> Iterator[tuple[str, bytes, bytes, bytes]]:
    """Give objects with such a name in one place: the place, the name, the data set, the UID in the command set."""
    whole = encoded(ct_slice(1))
    uids = {tag: str(ct_slice(1)[keyword].value).encode() for tag, keyword in _TAGS.values()}
    for number, name in enumerate(traversals(count)):
        place = PLACES[number % len(PLACES)]
        content, uid = whole, uids[_OBJECT]
        if place in ("command set", "both"):
            uid = name
        if place != "command set":
            tag, _ = _TAGS[place]
            content = replaced(whole, tag, uids[tag], ui_value(name))
        yield place, name, content, uid
