"""Result objects → durable files in the state folder."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path

from ich_node.durable import sync_directory, write_durably
from ich_node.job_queue import SavedObject
from ich_node.records import REPORT_KIND, ResultObject
from ich_node.saved_maps import SavedMap, encode_maps, maps_beside


def save_objects(
    state_directory: Path, objects: Sequence[ResultObject], maps: Sequence[SavedMap] = ()
) -> tuple[SavedObject, ...]:
    """Write each object durably, under a random name, and maps beside the report."""
    folder = state_directory / "results"
    folder.mkdir(exist_ok=True)
    sync_directory(folder.parent)
    saved: list[SavedObject] = []
    for one in objects:
        preference = sum(other.kind == one.kind for other in saved)  # the same content in several encodings
        path = folder / f"{uuid.uuid4().hex}.dcm"
        write_durably(path, [one.part10])
        saved.append(
            SavedObject(
                kind=one.kind,
                encoding=one.encoding,
                preference=preference,
                sop_class_uid=one.sop_class_uid,
                sop_instance_uid=one.sop_instance_uid,
                series_instance_uid=one.series_instance_uid,
                sha256=hashlib.sha256(one.part10).hexdigest(),
                path=str(path.relative_to(state_directory)),
            )
        )
    report = next((one for one in saved if one.kind == REPORT_KIND), None)
    if maps and report is not None:
        write_durably(maps_beside(state_directory / report.path), [encode_maps(maps)])
    return tuple(saved)
