"""Results of this node: from its database, and the patient's sex from the report that it saved."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from ich_node.database import Database
from ich_node.records import StudyResult
from ich_node.stored_files import StoredFiles
from ich_node.validation.answers import report_files, study_results


def node_results(database: Database, files: StoredFiles, wanted: Collection[str]) -> tuple[StudyResult, ...]:
    """Read the answers of all studies, and everything about those of the wanted UIDs."""
    reports = report_files(database, wanted)
    return tuple(
        dataclasses.replace(one, sex=_sex(files.path(reports[one.study_instance_uid])))
        if one.study_instance_uid in reports
        else one
        for one in study_results(database, wanted)
    )


def _sex(report: Path) -> str:
    """Read PatientSex; empty where the report is gone or does not say."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's texts quote values
            header = dcmread(report, specific_tags=["PatientSex"], stop_before_pixels=True)
            return str(header.get("PatientSex") or "").strip().upper()
    except (OSError, InvalidDicomError, ValueError, LookupError, AttributeError, EOFError):
        return ""
