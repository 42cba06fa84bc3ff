"""Storage SCU: send one object to one destination, and say what came of it (PS3.4 B.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from pynetdicom.association import Association

from ich_node.association import VERIFICATION, Patience, associate
from ich_node.errors import ClassNotTaken, DestinationUnavailable
from ich_node.records import DeliveryObject, Destination

_SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
_MEDIUM: Final = 0
_HIGH: Final = 1


class Verdict(Enum):
    """What a C-STORE status means for the outbox."""

    DELIVERED = "the destination has it"
    TRY_AGAIN = "the destination could not take it now"
    REFUSED = "the destination will hardly ever take it"


@dataclass(frozen=True, slots=True)
class StoreOutcome:
    """The answer to one C-STORE."""

    sop_class_uid: str
    sop_instance_uid: str
    dimse_status: int
    verdict: Verdict


def judge(dimse_status: int) -> Verdict:
    """Sort a C-STORE status (PS3.4 B.2.3, PS3.7 Annex C): warnings are delivered, A7xx and 01xx may pass."""
    if dimse_status == 0x0000 or 0xB000 <= dimse_status <= 0xBFFF:
        return Verdict.DELIVERED
    refused = 0xA900 <= dimse_status <= 0xA9FF or 0xC000 <= dimse_status <= 0xCFFF
    return Verdict.REFUSED if refused or dimse_status == _SOP_CLASS_NOT_SUPPORTED else Verdict.TRY_AGAIN


def is_warning(dimse_status: int) -> bool:
    """Tell a delivery with a warning from one without."""
    return 0xB000 <= dimse_status <= 0xBFFF


def store(association: Association, objects: Sequence[DeliveryObject], *, urgent: bool = False) -> StoreOutcome:
    """Send the first of several encodings whose SOP Class the destination accepted.

    Args:
        urgent: as a C-STORE of high priority, else of medium (PS3.7 9.3.1.1). Many a PACS looks at neither.

    Raises:
        ClassNotTaken: it accepted none of them.
        DestinationUnavailable: it aborted, hung, or did not answer in time.
    """
    accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
    chosen = next((one for one in objects if one.sop_class_uid in accepted), None)
    if chosen is None:
        raise ClassNotTaken("the destination accepts none of the object's storage classes")
    try:
        answer = association.send_c_store(chosen.path, priority=_HIGH if urgent else _MEDIUM)
    except (RuntimeError, OSError) as error:
        raise DestinationUnavailable("the association ended before the object was sent") from error
    status = answer.get("Status")
    if status is None:
        raise DestinationUnavailable("the destination aborted or did not answer the C-STORE in time")
    return StoreOutcome(chosen.sop_class_uid, chosen.sop_instance_uid, int(status), judge(int(status)))


def echo(destination: Destination, ae_title: str, patience: Patience) -> None:
    """Ask a destination whether it is there (C-ECHO).

    Raises:
        DestinationUnavailable: no connection or no answer.
        DestinationRefuses: the association was rejected.
    """
    with associate(destination, ae_title, [VERIFICATION], patience) as association:
        answer = association.send_c_echo()
    if answer.get("Status") != 0x0000:
        raise DestinationUnavailable("no answer to C-ECHO")
