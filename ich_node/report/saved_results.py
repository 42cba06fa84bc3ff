"""Saved result objects, read back: what each is, of which revision, what it says, and on which images it rests."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from ich_node.records import NotAnalysedReason, ReportIdentity, Triage
from ich_node.records.self_tests import is_self_test_patient
from ich_node.report import codes
from ich_node.report.identity import result_sop_instance_uid
from ich_node.report.key_slice_images import kind_and_revision
from ich_node.report.result_header import KEY_OBJECTS, KEY_SLICES, MANUFACTURER, PRESENTATION, REPORT, SUMMARY
from ich_node.report.structured_report import ENCODINGS

_SERIES: Final = {one.number: one for one in (REPORT, SUMMARY, KEY_SLICES, KEY_OBJECTS, PRESENTATION)}
_ENCODING_OF_REPORT: Final = {str(uid): (name, preference) for preference, (name, uid) in enumerate(ENCODINGS)}
_ENCODING_OF_KIND: Final = {
    SUMMARY.number: "SecondaryCapture",
    KEY_SLICES.number: "SecondaryCapture",
    KEY_OBJECTS.number: "KeyObjectSelection",
    PRESENTATION.number: "GrayscaleSoftcopyPresentationState",
}
_TRIAGES: Final = {
    codes.ACTIONABLE_CATEGORY_1.value: Triage.POSITIVE,
    codes.INDETERMINATE.value: Triage.INDETERMINATE,
    codes.NO_FINDING.value: Triage.NEGATIVE,
}
_NOT_OURS: Final = (InvalidDicomError, OSError, ValueError, KeyError, AttributeError, EOFError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class SavedResult:
    """A result object as its file tells of it."""

    path: Path
    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    kind: str
    encoding: str
    preference: int
    revision: int
    created_at: float
    """Seconds since 1970."""
    triage: Triage | None
    """Of a report; None for every other object, and where there is no result."""
    reason: NotAnalysedReason | None
    """Why a report gives no result."""
    withdrawn: bool
    images: Mapping[str, frozenset[str]]
    """Of a report: SOP Instance UIDs of the images that it rests on, by series."""
    of_self_test: bool = False
    """It is about the reserved patient, and to be gone."""

    def is_of(self, installation_uid: str) -> bool:
        """Say whether an installation made it: its UID follows from who made it, and of what."""
        identity = ReportIdentity(installation_uid, self.study_instance_uid, self.revision)
        return self.sop_instance_uid == result_sop_instance_uid(identity, self.kind, self.encoding)


def read_result(path: Path) -> SavedResult | None:
    """Read one saved object; None where it is none of ours, or damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's texts quote values
            header = pydicom.dcmread(path, stop_before_pixels=True)
            return _result(path, header) if header.get("Manufacturer") == MANUFACTURER else None
    except _NOT_OURS:
        return None


def _result(path: Path, header: Dataset) -> SavedResult:
    number = int(header.SeriesNumber)
    is_report = number == REPORT.number
    encoding, preference = _ENCODING_OF_REPORT[header.SOPClassUID] if is_report else (_ENCODING_OF_KIND[number], 0)
    kind, revision = _SERIES[number].kind, int(header.InstanceNumber)
    if number == KEY_SLICES.number:
        kind, revision = kind_and_revision(revision)
    category = _coded(header, codes.TRIAGE_CATEGORY.value) if is_report else ""
    triage = _TRIAGES.get(category)
    return SavedResult(
        path=path,
        study_instance_uid=str(header.StudyInstanceUID),
        series_instance_uid=str(header.SeriesInstanceUID),
        sop_class_uid=str(header.SOPClassUID),
        sop_instance_uid=str(header.SOPInstanceUID),
        kind=kind,
        encoding=encoding,
        preference=preference,
        revision=revision,
        created_at=_created_at(header),
        triage=triage,
        reason=_reason(header) if is_report and triage is None else None,
        withdrawn=category == codes.WITHDRAWN.value,
        images=_images(header) if is_report else {},
        of_self_test=is_self_test_patient(str(header.get("PatientID")), str(header.get("IssuerOfPatientID"))),
    )


def _created_at(header: Dataset) -> float:
    text = f"{header.InstanceCreationDate}{header.InstanceCreationTime}{header.TimezoneOffsetFromUTC}"
    return datetime.strptime(text, "%Y%m%d%H%M%S.%f%z").timestamp()


def _reason(header: Dataset) -> NotAnalysedReason | None:
    """Find the reason in the conclusion, which states it in its own words; the longest that fits."""
    conclusion = next((str(item.TextValue) for item in _items(header, codes.CONCLUSION.value)), "")
    fitting = [one for one in NotAnalysedReason if one.text in conclusion]
    return max(fitting, key=lambda one: len(one.text), default=None)


def _images(header: Dataset) -> dict[str, frozenset[str]]:
    images: dict[str, frozenset[str]] = {}
    for study in header.CurrentRequestedProcedureEvidenceSequence:
        for series in study.ReferencedSeriesSequence:
            uids = frozenset(str(one.ReferencedSOPInstanceUID) for one in series.ReferencedSOPSequence)
            images[str(series.SeriesInstanceUID)] = uids
    return images


def _coded(header: Dataset, concept: str) -> str:
    return next((str(item.ConceptCodeSequence[0].CodeValue) for item in _items(header, concept)), "")


def _items(container: Any, concept: str) -> list[Any]:
    """List the content items with this concept, at any depth (PS3.3 C.17.3)."""
    found = []
    for item in container.get("ContentSequence", ()):
        if item.get("ConceptNameCodeSequence") and str(item.ConceptNameCodeSequence[0].get("CodeValue")) == concept:
            found.append(item)
        found += _items(item, concept)
    return found
