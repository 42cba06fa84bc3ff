"""Studies to send: one small phantom, told apart by UIDs, patient and a few pixels."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from pydicom import Dataset
from pydicom.uid import generate_uid

from ich_node.phantom import PhantomSettings, make_series
from tests.integration.receiving import encoded

WHOLE: Final = 11
SHORT: Final = 6
"""Slices: too few to be analysed, and the report says so."""
_ROWS: Final = 64


@dataclass(frozen=True)
class SentStudy:
    """A study as its sender knows it."""

    uid: str
    patient_id: str
    slices: int
    folder: Path
    """One encoded data set per slice: ``<SOPInstanceUID>.ds``."""

    @property
    def is_whole(self) -> bool:
        return self.slices >= WHOLE

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each data set by its SOP Instance UID."""
        return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.folder.glob("*.ds")}


@cache
def _template() -> list[Dataset]:
    return make_series(PhantomSettings(lesion="subdural", slices=WHOLE, rows=_ROWS, slice_spacing_mm=12, uid_seed="T"))


def write_study(folder: Path, number: int, slices: int = WHOLE) -> SentStudy:
    """Write a study that nobody has sent yet."""
    folder.mkdir(parents=True)
    study, series, frame = (str(generate_uid()) for _ in range(3))
    for one in deepcopy(_template()[:slices]):
        one.PatientID = f"TORTURED-{number}"
        one.PatientName = f"Patient^{number}"
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.SOPInstanceUID = str(generate_uid())
        one.PixelData = number.to_bytes(2, "little") + one.PixelData[2:]
        # by their names the slices are sent in anatomical order or not: both happen
        (folder / f"{one.SOPInstanceUID}.ds").write_bytes(encoded(one))
    return SentStudy(study, f"TORTURED-{number}", slices, folder)
