"""What bulk scoring knows of the files and series of an archive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """A file of an archive, or a member of a zip file."""

    source: int
    """Number of the source, from 0, that it was found under."""
    path: Path
    member: int | None
    """Of a zip file: number of the member in its directory, from 0."""
    name: str
    """What is shown: the path, and in a zip file the member's name after it; printable."""
    size: int
    """Bytes, unpacked."""
    changed_ns: int
    """When the file, or the zip file, was last changed."""
    checksum: int = 0
    """CRC-32 of a member."""


@dataclass(frozen=True, slots=True)
class ArchivedHeader:
    """What is read of a file before it is scored. The node keeps no more of it."""

    study_instance_uid: str = ""
    series_instance_uid: str = ""
    station_name: str = ""
    sex: str = ""
    """PatientSex; empty where it is not known."""
    why: str = ""
    """Why the file cannot be used; empty where it can."""


@dataclass(frozen=True, slots=True)
class BadFile:
    """A file that could not be used, and why; holds nothing of its header."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class ArchivedSeries:
    """One series of an archive, to be scored."""

    study_instance_uid: str
    series_instance_uid: str
    fingerprint: str
    """Of model, settings and files: what was scored under the same needs no scoring again."""
    files: tuple[ArchivedFile, ...]
    """In the order in which ``ich-node score`` reads them."""
    station_name: str = ""
    sex: str = ""
    not_received: int = 0
    """Of a PACS: images that it holds and that did not come, or came damaged."""
    lost: tuple[BadFile, ...] = ()
    """Of a PACS: what did not come, in one line, and which images came damaged."""


@dataclass(frozen=True, slots=True)
class ListedSeries:
    """One series of a PACS, as it says."""

    study_instance_uid: str
    series_instance_uid: str
    images: int
    """How many it holds; 0 where it does not say."""
