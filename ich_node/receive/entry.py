"""What is entered of an object: who it is, where it lies, who sent it, and how soon it is analysed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from ich_node.config import Config
from ich_node.receive.data_set import Identity
from ich_node.records import ANALYSED_SOP_CLASSES, KEY_OBJECT_SELECTION_STORAGE, ReceivedInstance
from ich_node.routing import is_old, priority_of

READ_SOP_CLASSES: Final = (*ANALYSED_SOP_CLASSES, KEY_OBJECT_SELECTION_STORAGE)
"""Instances of every other class are kept, and never read."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A data set that is safe in the spool."""

    path: str
    """Relative to the state folder."""
    sha256: str
    size_bytes: int
    transfer_syntax_uid: str


def describe(
    config: Config, identity: Identity, kept: Kept, calling_ae_title: str, remote_address: str
) -> ReceivedInstance:
    """Say what is entered of an object.

    Args:
        remote_address: empty where it is not known any more.
    """
    return ReceivedInstance(
        study_instance_uid=identity.study_instance_uid,
        series_instance_uid=identity.series_instance_uid,
        sop_instance_uid=identity.sop_instance_uid,
        sop_class_uid=identity.sop_class_uid,
        transfer_syntax_uid=kept.transfer_syntax_uid,
        modality=identity.modality,
        sha256=kept.sha256,
        size_bytes=kept.size_bytes,
        path=kept.path,
        calling_ae_title=calling_ae_title,
        remote_address=remote_address,
        priority=priority_of(config, calling_ae_title, identity.station_name, identity.requested_priority),
        old=is_old(config, identity.acquired_at, time.time()),
        acquired_at=identity.acquired_at,
        station_name=identity.station_name,
    )
