"""Have a PACS send one series to a storage SCP (C-MOVE, PS3.4 C.4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ich_node.association import Patience, associate
from ich_node.errors import MoveDestinationUnknown
from ich_node.query_retrieve.asking import identifier
from ich_node.records import Destination

STUDY_ROOT_MOVE: Final = "1.2.840.10008.5.1.4.1.2.2.2"
MOVE_KEYS: Final = ("QueryRetrieveLevel", "StudyInstanceUID", "SeriesInstanceUID")

_PENDING: Final = (0xFF00, 0xFF01)
_MOVE_DESTINATION_UNKNOWN: Final = 0xA801


@dataclass(frozen=True, slots=True)
class MoveOutcome:
    """How a C-MOVE ended."""

    status: int | None
    """Of the last response; None: the association ended, or nothing more came in time."""
    failed: int = 0
    """Sub-operations that failed, as far as the PACS says so."""


def move_series(
    destination: Destination, ae_title: str, to_ae_title: str, study_instance_uid: str, series_instance_uid: str,
    patience: Patience,
) -> MoveOutcome:  # fmt: skip
    """Ask for one series, and wait until the PACS says that it is done.

    Args:
        to_ae_title: AE title of the storage SCP that the PACS sends to.
        patience: with each response; a PACS that sends none in between needs the time of the whole series.

    Raises:
        DestinationUnavailable: no connection.
        DestinationRefuses: the association was rejected, or C-MOVE is not offered.
        MoveDestinationUnknown: the PACS does not know whom it is to send to.
    """
    uids = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": series_instance_uid}
    query = identifier(MOVE_KEYS, QueryRetrieveLevel="SERIES", **uids)
    with associate(destination, ae_title, [STUDY_ROOT_MOVE], patience) as association:
        try:
            for response, _ in association.send_c_move(query, to_ae_title, STUDY_ROOT_MOVE):
                status = response.get("Status")
                if status == _MOVE_DESTINATION_UNKNOWN:
                    raise MoveDestinationUnknown(to_ae_title)
                if status not in _PENDING:
                    return MoveOutcome(status, int(response.get("NumberOfFailedSuboperations") or 0))
        except (RuntimeError, OSError):
            return MoveOutcome(None)
    return MoveOutcome(None)
