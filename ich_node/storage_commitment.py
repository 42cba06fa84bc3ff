"""Storage Commitment SCU: ask a destination to keep what it was sent, read what it answers (PS3.4 Annex J)."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from typing import Any, Final, cast

from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pynetdicom import evt
from pynetdicom.dimse_messages import N_EVENT_REPORT_RSP
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from ich_node.association import Patience, associate
from ich_node.errors import DestinationUnavailable, EventReportNotUnderstood, StoreRefused
from ich_node.records import (
    CommitmentFailure,
    CommitmentReport,
    CommitmentRequest,
    Destination,
    ObjectReference,
    ReportTaken,
)

STORAGE_COMMITMENT: Final = str(StorageCommitmentPushModel)
STORAGE_COMMITMENT_INSTANCE: Final = str(StorageCommitmentPushModelInstance)
_REQUEST_COMMITMENT: Final = 1
"""Action Type ID (PS3.4 J.3.2.1)."""
_ALL_COMMITTED: Final = 1
_FAILURES_EXIST: Final = 2
"""Event Type IDs (PS3.4 J.3.3.1)."""
_LONGEST_REPORT: Final = 1024 * 1024
"""Bytes: we ask about few objects at once, each takes some 200."""
_MOST_REFERENCES: Final = 2000
_LOOK_S: Final = 0.1

SUCCESS: Final = 0x0000
PROCESSING_FAILURE: Final = 0x0110
NO_SUCH_INSTANCE: Final = 0x0112
NO_SUCH_EVENT_TYPE: Final = 0x0113
INVALID_ARGUMENT: Final = 0x0115
RESOURCE_LIMITATION: Final = 0x0213
STATUSES: Final = {
    SUCCESS: "taken, and kept; or the same answer came before",
    PROCESSING_FAILURE: "a fault of ours, or the database stays locked: the same answer may be sent again",
    NO_SUCH_INSTANCE: "it is not about the well-known instance of the push model",
    NO_SUCH_EVENT_TYPE: "neither event type 1 nor 2",
    INVALID_ARGUMENT: "it cannot be read; no such transaction was asked of this AE title; or it names other objects",
    RESOURCE_LIMITATION: "more than 16 different answers to one transaction",
}
"""What we answer to an N-EVENT-REPORT (PS3.7 10.1.1.1.8, C.5)."""

_STATUS_OF: Final = {
    ReportTaken.TAKEN: SUCCESS,
    ReportTaken.KNOWN: SUCCESS,
    ReportTaken.UNKNOWN: INVALID_ARGUMENT,
    ReportTaken.DIFFERS: INVALID_ARGUMENT,
    ReportTaken.TOO_MANY: RESOURCE_LIMITATION,
}
_WHAT_PYDICOM_RAISES: Final = (
    ArithmeticError, AssertionError, AttributeError, EOFError, InvalidDicomError, LookupError, MemoryError,
    NotImplementedError, OSError, RecursionError, TypeError, ValueError, struct.error,
)  # fmt: skip

TakeReport = Callable[[CommitmentReport], ReportTaken]


def ask_commitment(
    destination: Destination,
    ae_title: str,
    request: CommitmentRequest,
    patience: Patience,
    *,
    acknowledged: Callable[[], None],
    take: TakeReport,
    stay_s: float,
) -> None:
    """Ask for the commitment to some objects (N-ACTION), and stay a while for an answer on the same association.

    Args:
        acknowledged: called once the destination has taken the request.
        take: is given an answer that comes meanwhile, in another thread.
        stay_s: seconds to stay; the answer may as well come later, on an association that the destination opens.

    Raises:
        DestinationUnavailable: no connection, an abort, or no answer to the request in time.
        DestinationRefuses: it rejects the association, or does not know storage commitment.
        StoreRefused: it answers the request with a failure status.
    """
    answered = threading.Event()

    def report(event: Event) -> tuple[int, None]:
        return answer_event_report(event, take), None

    def sent(event: Event) -> None:
        if isinstance(event.message, N_EVENT_REPORT_RSP):
            answered.set()

    handlers: list[EventHandlerType] = [(evt.EVT_N_EVENT_REPORT, report), (evt.EVT_DIMSE_SENT, sent)]
    with associate(destination, ae_title, [STORAGE_COMMITMENT], patience, handlers) as association:
        try:
            status, _ = association.send_n_action(
                _action_information(request), _REQUEST_COMMITMENT, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
            )
        except (RuntimeError, OSError) as error:
            raise DestinationUnavailable("the association ended before commitment was asked") from error
        if (code := status.get("Status")) is None:
            raise DestinationUnavailable("the destination aborted or did not answer the N-ACTION in time")
        if code != SUCCESS:
            raise StoreRefused(int(code))  # its comment may name a patient
        acknowledged()
        _stay(association, answered, stay_s)


def check_commitment(destination: Destination, ae_title: str, patience: Patience) -> None:
    """See whether a destination knows storage commitment; nothing is asked.

    Raises:
        DestinationUnavailable: no connection or no answer.
        DestinationRefuses: it rejects the association, or does not know storage commitment.
    """
    with associate(destination, ae_title, [STORAGE_COMMITMENT], patience):
        pass


def _stay(association: Any, answered: threading.Event, seconds: float) -> None:
    waited = 0.0
    while waited < seconds and association.is_established:
        if answered.wait(_LOOK_S):
            time.sleep(_LOOK_S)  # our response is about to be sent: the release is not to overtake it
            return
        waited += _LOOK_S


def _action_information(request: CommitmentRequest) -> Dataset:
    """Write the Action Information (PS3.4 Table J.3-1)."""
    information = Dataset()
    information.TransactionUID = request.transaction_uid
    information.ReferencedSOPSequence = [_item(one) for one in request.objects]
    return information


def _item(reference: ObjectReference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def answer_event_report(event: Event, take: TakeReport) -> int:
    """Read an N-EVENT-REPORT, give it to who keeps it, and return the status to answer with."""
    request = cast(N_EVENT_REPORT, event.request)
    if str(request.AffectedSOPInstanceUID) != STORAGE_COMMITMENT_INSTANCE:
        return NO_SUCH_INSTANCE
    if request.EventTypeID not in (_ALL_COMMITTED, _FAILURES_EXIST):
        return NO_SUCH_EVENT_TYPE
    try:
        report = _read(event)
    except EventReportNotUnderstood:
        return INVALID_ARGUMENT
    return _STATUS_OF[take(report)]


def _read(event: Event) -> CommitmentReport:
    """Read the Event Information (PS3.4 Table J.3-2).

    Raises:
        EventReportNotUnderstood: it cannot be read, or does not fit its event type.
    """
    request = cast(N_EVENT_REPORT, event.request)
    encoded = request.EventInformation
    if encoded is None or len(encoded.getbuffer()) > _LONGEST_REPORT:
        raise EventReportNotUnderstood("no event information, or too much")
    try:
        information = event.event_information
        transaction_uid = str(information.TransactionUID)
        committed = tuple(map(_reference, information.get("ReferencedSOPSequence") or ()))
        failed = tuple(map(_failure, information.get("FailedSOPSequence") or ()))
    except _WHAT_PYDICOM_RAISES as error:
        raise EventReportNotUnderstood(type(error).__name__) from None
    if bool(failed) != (request.EventTypeID == _FAILURES_EXIST) or not (committed or failed):
        raise EventReportNotUnderstood("it does not fit its event type")
    if len(committed) + len(failed) > _MOST_REFERENCES:
        raise EventReportNotUnderstood("it names too many objects")
    return CommitmentReport(transaction_uid, committed, failed)


def _reference(item: Dataset) -> ObjectReference:
    return ObjectReference(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))


def _failure(item: Dataset) -> CommitmentFailure:
    return CommitmentFailure(_reference(item), int(item.FailureReason))
