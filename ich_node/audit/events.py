"""The audit message of each event (PS3.15 A.5.3). Values in, a message out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ich_node.audit import codes
from ich_node.audit.message import (
    NONE,
    Action,
    AuditMessage,
    Outcome,
    Participant,
    Subject,
    Thing,
    dicom_query,
    patient,
    resource,
    study,
)

TRIGGERS: Final[tuple[tuple[codes.Code, codes.Code | None, str], ...]] = (
    (codes.APPLICATION_ACTIVITY, codes.APPLICATION_START, "a role is ready"),
    (codes.APPLICATION_ACTIVITY, codes.APPLICATION_STOP, "a role ends in order"),
    (codes.AUDIT_LOG_USED, None, "`ich-node audit show`, `ich-node audit export`, the page of the trail"),
    (codes.BEGIN_TRANSFERRING, None, "before the first object of a study in an association: received, or sent"),
    (codes.INSTANCES_TRANSFERRED, None, "an association ends: one message per patient, outcome and reason"),
    (
        codes.INSTANCES_ACCESSED,
        None,
        "the page of an alert or of a study is looked at, or a patient is listed (R); reports past their days, or "
        "by a person, are deleted (D)",
    ),
    (codes.STUDY_DELETED, None, "images past their days are deleted, or by a person"),
    (
        codes.EXPORT,
        None,
        "an alert of a study is told or cannot be; `ich-node score --output` of a node; labels are written out",
    ),
    (
        codes.PROCEDURE_RECORD,
        None,
        "an alert is acknowledged, by link, page, API, HL7 or command; a reader says whether a finding is right",
    ),
    (codes.QUERY, None, "a C-FIND is sent"),
    (
        codes.SECURITY_ALERT,
        codes.NODE_AUTHENTICATION,
        "an association or a link is refused; the same again within a minute is counted",
    ),
    (codes.SECURITY_ALERT, codes.SOFTWARE_CONFIGURATION, "a role starts with another configuration than before"),
    (
        codes.SECURITY_ALERT,
        codes.RESTRICTED_FUNCTION,
        "`ich-node requeue`, `release`, `reject`, `resend` ..., or the same by a page or the API",
    ),
    (codes.SECURITY_ALERT, codes.RECORDING_STOPPED, "records were lost, since the disk took none"),
    (
        codes.USER_AUTHENTICATION,
        codes.LOGIN,
        "somebody logs in to the pages, or tries to; a program shows no token of this node",
    ),
    (codes.USER_AUTHENTICATION, codes.LOGOUT, "somebody logs out"),
)
"""Which event makes which message; for the conformance statement."""

LOG_NAME: Final = "Security Audit Log"
"""As A.5.3.2 wants it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """An application entity on the network."""

    ae_title: str
    address: str

    def as_participant(self, role: codes.Code, *, is_requestor: bool) -> Participant:
        """Say as what it took part."""
        titles = f"AETITLES={self.ae_title}" if self.ae_title else ""
        return Participant(self.ae_title or self.address, is_requestor, titles, role, self.address)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Instances of one patient that went, or were to go, from one application to another."""

    source: Participant
    destination: Participant
    patient_id: str
    studies: Mapping[str, Mapping[str, int]]
    """Number of instances by study and SOP Class UID."""


def application(started: bool, process: Participant, launcher: str) -> AuditMessage:
    """A role of the node started, or stopped (A.5.3.1)."""
    kind = codes.APPLICATION_START if started else codes.APPLICATION_STOP
    who = replace(process, role=codes.APPLICATION)
    by = Participant(launcher, is_requestor=True, role=codes.Code("110151", "DCM", "Application Launcher"))
    return AuditMessage(codes.APPLICATION_ACTIVITY, Action.EXECUTE, (who, by), types=(kind,))


def log_used(process: Participant, person: Participant, uri: str, command: str) -> AuditMessage:
    """Somebody read the trail (A.5.3.2)."""
    log = resource(uri, name=LOG_NAME, Command=command)
    return AuditMessage(codes.AUDIT_LOG_USED, Action.READ, (person, process), (log,))


def begin_transferring(transfer: Transfer) -> AuditMessage:
    """Instances of a patient are about to be transferred (A.5.3.3)."""
    things = (*(study(uid) for uid in transfer.studies), patient(transfer.patient_id))
    return AuditMessage(codes.BEGIN_TRANSFERRING, Action.EXECUTE, (transfer.source, transfer.destination), things)


def instances_transferred(transfer: Transfer, action: Action, outcome: Outcome, why: str = "") -> AuditMessage:
    """Instances of a patient were transferred, or could not be (A.5.3.7).

    Args:
        action: CREATE what the receiver did not hold, READ what it did, or where that is not known.
    """
    things = (
        *(study(uid, classes) for uid, classes in transfer.studies.items()),
        patient(transfer.patient_id),
    )
    return AuditMessage(
        codes.INSTANCES_TRANSFERRED, action, (transfer.source, transfer.destination), things, (), outcome, why
    )


def instances_accessed(action: Action, by: Sequence[Participant], subject: Subject, **details: str) -> AuditMessage:
    """Somebody looked at what is known of a study (A.5.3.6)."""
    things = (study(subject.study_instance_uid, details=tuple(details.items())), patient(subject.patient_id))
    return AuditMessage(codes.INSTANCES_ACCESSED, action, tuple(by), things)


def study_deleted(process: Participant, transfer_of: Mapping[str, Mapping[str, int]], patient_id: str) -> AuditMessage:
    """The images of studies were deleted (A.5.3.8)."""
    things = (*(study(uid, classes) for uid, classes in transfer_of.items()), patient(patient_id))
    return AuditMessage(codes.STUDY_DELETED, Action.DELETE, (process,), things)


def instances_deleted(process: Participant, of: Mapping[str, Mapping[str, int]], patient_id: str) -> AuditMessage:
    """Some objects of studies were deleted, and not all that is held of them (A.5.3.6)."""
    things = (*(study(uid, classes) for uid, classes in of.items()), patient(patient_id))
    return AuditMessage(codes.INSTANCES_ACCESSED, Action.DELETE, (process,), things)


def exported(
    by: Sequence[Participant], to: str, medium: codes.Code, studies: Mapping[str, Sequence[str]],
    outcome: Outcome = Outcome.SUCCESS, why: str = "", **details: str,
) -> AuditMessage:  # fmt: skip
    """Something about patients left the node other than by DICOM: an alert, or files of ``score`` (A.5.3.4).

    Args:
        to: where it went: a URI, a mail server, a host.
        studies: Study Instance UIDs by patient.
    """
    media = Participant(to, role=codes.DESTINATION_MEDIA, address=to, media=medium)
    exporting = tuple(replace(one, role=codes.SOURCE_ROLE) for one in by)
    things: list[Thing] = []
    for patient_id, uids in studies.items():
        things += [study(uid, details=tuple(details.items())) for uid in uids]
        things.append(patient(patient_id))
    return AuditMessage(codes.EXPORT, Action.READ, (*exporting, media), tuple(things), (), outcome, why)


def queried(
    source: Participant, destination: Participant, sop_class_uid: str, identifier: bytes, transfer_syntax_uid: str
) -> AuditMessage:  # fmt: skip
    """A query was sent (A.5.3.10)."""
    thing = dicom_query(sop_class_uid, identifier, transfer_syntax_uid)
    return AuditMessage(codes.QUERY, Action.EXECUTE, (source, destination), (thing,))


def procedure_updated(by: Sequence[Participant], subject: Subject, **details: str) -> AuditMessage:
    """What is known of a procedure changed: an alert of it was acknowledged (A.5.3.15)."""
    things = (study(subject.study_instance_uid, details=tuple(details.items())), patient(subject.patient_id))
    return AuditMessage(codes.PROCEDURE_RECORD, Action.UPDATE, tuple(by), things)


def security_alert(
    kind: codes.Code, reporting: Sequence[Participant], performing: Participant | None, subject: Thing,
    outcome: Outcome = Outcome.SUCCESS, why: str = "",
) -> AuditMessage:  # fmt: skip
    """Something that whoever looks after security wants to know (A.5.3.11)."""
    acting = () if performing is None else (replace(performing, is_requestor=False),)
    return AuditMessage(codes.SECURITY_ALERT, Action.EXECUTE, (*reporting, *acting), (subject,), (kind,), outcome, why)


def authenticated(
    kind: codes.Code, process: Participant, person: Participant, outcome: Outcome = Outcome.SUCCESS, why: str = ""
) -> AuditMessage:
    """Somebody logged in or out, or was not let in (A.5.3.12)."""
    return AuditMessage(codes.USER_AUTHENTICATION, Action.EXECUTE, (person, process), (), (kind,), outcome, why)


def node(address: str, **details: str) -> Thing:
    """Name a node as the subject of a security alert."""
    named = address or NONE
    return Thing(named, codes.NODE_ID, role="13", details=tuple(details.items()))
