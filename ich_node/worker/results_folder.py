"""Result objects → durable files."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ich_node.job_queue import SavedObject
from ich_node.records import REPORT_KIND, ResultObject
from ich_node.saved_maps import SavedMap, encode_maps, maps_beside
from ich_node.stored_files import StoredFiles

_FOLDER: Final = "results"


def save_objects(
    files: StoredFiles, objects: Sequence[ResultObject], maps: Sequence[SavedMap] = ()
) -> tuple[SavedObject, ...]:
    """Write each object durably, under a random name, and maps beside the report."""
    files.make_folder(_FOLDER)
    saved: list[SavedObject] = []
    for one in objects:
        preference = sum(other.kind == one.kind for other in saved)  # the same content in several encodings
        name = f"{_FOLDER}/{uuid.uuid4().hex}.dcm"
        files.write(name, [one.part10])
        saved.append(
            SavedObject(
                kind=one.kind,
                encoding=one.encoding,
                preference=preference,
                sop_class_uid=one.sop_class_uid,
                sop_instance_uid=one.sop_instance_uid,
                series_instance_uid=one.series_instance_uid,
                sha256=hashlib.sha256(one.part10).hexdigest(),
                path=name,
            )
        )
    report = next((one for one in saved if one.kind == REPORT_KIND), None)
    if maps and report is not None:
        files.write(str(maps_beside(Path(report.path))), [encode_maps(maps)])
    return tuple(saved)
