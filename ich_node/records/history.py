"""What is known of a patient's earlier studies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class EarlierBleed:
    """Hemorrhage that this node reported for an earlier study. Times are seconds since 1970; None: not known."""

    reported_at: float | None
    acquired_at: float | None


@dataclass(frozen=True, slots=True)
class EarlierStudies:
    """Earlier CT studies that the PACS knows of a patient."""

    count: int
    newest: str = ""
    """StudyDate, YYYYMMDD; empty where there is none."""


@dataclass(frozen=True, slots=True)
class PatientHistory:
    """Earlier studies of the patient of a study. What is not known never counts as none."""

    here: int | None = None
    """How many this node received; None where that cannot be told."""
    newest_here_at: float | None = None
    """When the newest of them was acquired, else reported; seconds since 1970."""
    bleed: EarlierBleed | None = None
    """The newest hemorrhage that was reported and holds."""
    asked_pacs: bool = False
    at_pacs: EarlierStudies | None = None
    """None: the PACS was not asked, or its answer says too little."""

    @property
    def known_bleed(self) -> bool:
        """This node reported hemorrhage for an earlier study of the patient."""
        return self.bleed is not None

    def in_words(self, *, dated: bool = True) -> str:
        """Say it in a sentence.

        Args:
            dated: with dates of studies, which are patient data.
        """
        here = self._here(dated)
        if not self.asked_pacs or (self.here is None and self.at_pacs is None):
            return here
        return f"{here}; {self._at_pacs(dated)}"

    def _here(self, dated: bool) -> str:
        if self.bleed is not None:
            return _bleed(self.bleed) if dated else "hemorrhage was reported before"
        if self.here is None:
            return "earlier studies not known"
        if self.here == 0:
            return "first study known here"
        known = f"{_count(self.here, 'earlier study')} known here"
        return f"{known}{_of(self.here, _day(self.newest_here_at), dated)}; no report of hemorrhage that holds"

    def _at_pacs(self, dated: bool) -> str:
        if self.at_pacs is None:
            return "earlier studies at the PACS not known"
        if self.at_pacs.count == 0:
            return "no earlier CT study at the PACS"
        count, date = self.at_pacs.count, self.at_pacs.newest
        day = f"{date[:4]}-{date[4:6]}-{date[6:]}" if date else ""
        return f"{_count(count, 'earlier CT study')} at the PACS{_of(count, day, dated)}"


def _bleed(bleed: EarlierBleed) -> str:
    reported, acquired = _day(bleed.reported_at), _day(bleed.acquired_at)
    said = f"hemorrhage was reported on {reported}" if reported else "hemorrhage was reported"
    return f"{said} for the study of {acquired}" if acquired and acquired != reported else said


def _count(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what.replace('study', 'studies')}"


def _of(count: int, day: str, dated: bool) -> str:
    if not (day and dated):
        return ""
    return f", of {day}" if count == 1 else f", the newest of {day}"


def _day(seconds: float | None) -> str:
    """Give the date here, at the node."""
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d}"
