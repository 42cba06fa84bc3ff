"""What is entered of an object: who it is, where it lies, who sent it, and how soon it is analysed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from ich_node.config import Config, PeerSettings
from ich_node.receive.data_set import Identity, identify
from ich_node.receive.spool import source_ae_title, split_file
from ich_node.records import ANALYSED_SOP_CLASSES, KEY_OBJECT_SELECTION_STORAGE, ReceivedInstance
from ich_node.records.self_tests import SELF_TEST_AE_TITLE, SELF_TEST_PRIORITY
from ich_node.routing import is_old, priority_of
from ich_node.stored_files import stored_files

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
    of_test = calling_ae_title == SELF_TEST_AE_TITLE
    rules = priority_of(config, calling_ae_title, identity.station_name, identity.requested_priority)
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
        priority=SELF_TEST_PRIORITY if of_test else rules,
        old=not of_test and is_old(config, identity.acquired_at, time.time()),
        acquired_at=identity.acquired_at,
        station_name=identity.station_name,
    )


def describe_file(config: Config, path: str) -> ReceivedInstance:
    """Say what is entered of an object of which nothing is left but its file.

    Args:
        path: relative to the state folder.

    Raises:
        RefusedDataSet: the file is damaged.
        OSError: it cannot be read.
        StorageUnavailable: it cannot be fetched now.
    """
    part10 = stored_files(config).path(path).read_bytes()
    syntax, encoded = split_file(part10)
    identity, sender = identify(encoded, syntax), source_ae_title(part10)
    kept = Kept(path, hashlib.sha256(encoded).hexdigest(), len(encoded), syntax)
    return describe(config, identity, kept, sender, _address_of(config.peer, sender))


def _address_of(peers: Sequence[PeerSettings], ae_title: str) -> str:
    """Give an address from which a peer sends, so that its own rules hold; empty where its title does not tell."""
    fitting = [peer for peer in peers if peer.ae_title == ae_title]
    return str(ip_network(fitting[0].address, strict=False).network_address) if len(fitting) == 1 else ""
