"""The trail of one process: a method for each kind of event. Nothing that happens to it stops what is recorded."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from ich_node.audit import codes, events
from ich_node.audit.changes import note_configuration
from ich_node.audit.events import Peer
from ich_node.audit.journal import Journal
from ich_node.audit.message import NONE, Action, AuditMessage, Outcome, Participant, Subject, Thing, resource
from ich_node.audit.stored import FOLDER
from ich_node.audit.subject import read_object
from ich_node.audit.syslog import format_message
from ich_node.config import Config
from ich_node.repeats import Kind, Repeats

_STUDIES_A_MESSAGE: Final = 200
_FAILURES: Final = (Outcome.MINOR, Outcome.SERIOUS, Outcome.MAJOR)


class AuditTrail:
    """Writes audit messages for one process.

    Args:
        journal: where they go; None: nowhere (``audit.enabled = false``).
        role: of the process: receive, work, deliver, web, or a command.
    """

    def __init__(self, journal: Journal | None, role: str, ae_title: str, state_directory: Path) -> None:
        self._journal = journal
        self._role = role
        self._ae_title = ae_title
        self._state = state_directory
        self._host = socket.gethostname()
        self._refusals = Repeats()
        self._views = Repeats()
        self._logins = Repeats()

    def record(self, message: AuditMessage, *, durable: bool = False) -> None:
        """Write a message.

        Args:
            durable: return only when it outlives a power cut.
        """
        if self._journal is None:
            return
        self._write(message, durable=durable)
        if lost := self._journal.take_lost():
            gap = resource("ich-node:audit", Lost=str(lost))
            stopped = codes.RECORDING_STOPPED
            self._write(events.security_alert(stopped, (self.process,), None, gap, Outcome.SERIOUS), durable=durable)

    def _write(self, message: AuditMessage, *, durable: bool) -> None:
        assert self._journal is not None, "record looks"
        process, failed = f"{self._role}.{os.getpid()}", message.outcome in _FAILURES

        def make(at: float) -> bytes:
            return format_message(message.to_xml(self._ae_title, at), at, self._host, process, failed=failed)

        self._journal.append(make, durable=durable)

    # --------------------------------------------------------------------------------------- who takes part

    @property
    def process(self) -> Participant:
        """This process, as whoever took part."""
        return Participant(
            f"ich-node {self._role} {os.getpid()}", False, f"AETITLES={self._ae_title}", None, self._host
        )

    def as_source(self, *, is_requestor: bool) -> Participant:
        """This process, as who sends."""
        return replace(self.process, role=codes.SOURCE_ROLE, is_requestor=is_requestor)

    def as_destination(self) -> Participant:
        """This process, as who is sent to."""
        return replace(self.process, role=codes.DESTINATION_ROLE)

    @property
    def person(self) -> Participant:
        """The user of the operating system whose command this is; behind ``sudo``, who called it."""
        return Participant(f"{_user()}@{self._host}", True, os.environ.get("SUDO_USER", ""), None, self._host)

    # ------------------------------------------------------------------------------------------ what happens

    def started(self, config: Config) -> None:
        """The process serves from now on; say first whether its configuration is another than before."""
        if self._journal is None:
            return
        if (changed := note_configuration(config.host_directory / FOLDER, config)) is not None:
            self.record(
                events.security_alert(codes.SOFTWARE_CONFIGURATION, (self.process,), None, changed), durable=True
            )
        self.record(events.application(True, self.process, _user()), durable=True)

    def stopped(self) -> None:
        """The process ends."""
        self._record_refusals_left()
        self.record(events.application(False, self.process, _user()), durable=True)
        if self._journal is not None:
            self._journal.close()

    def refused(self, address: str, why: str, calling_ae_title: str = "", called_ae_title: str = "") -> None:
        """Somebody was not let in: an association, a TLS connection, a link.

        Args:
            why: in our words.
        """
        kind = (why, address, calling_ae_title, called_ae_title)
        if self._journal is not None and (times := self._refusals.count(*kind)):
            self._record_refusal(kind, times)

    def _record_refusals_left(self) -> None:
        for kind, times in self._refusals.left():
            self._record_refusal(kind, times)
        for kind, times in self._logins.left():
            self._record_login_refused(kind, times)

    def _record_refusal(self, kind: Kind, times: int) -> None:
        why, address, calling, called = kind
        details = {"Calling AE title": calling, "Called AE title": called, "Times": str(times)}
        subject = events.node(address, **{name: text for name, text in details.items() if text})
        peer = Peer(calling, address).as_participant(codes.SOURCE_ROLE, is_requestor=False)
        self.record(
            events.security_alert(codes.NODE_AUTHENTICATION, (self.process,), peer, subject, Outcome.SERIOUS, why)
        )

    def queried(self, peer: Peer, sop_class_uid: str, identifier: bytes, transfer_syntax_uid: str) -> None:
        """A PACS is asked. What it answers is not recorded (A.5.3.10)."""
        destination = peer.as_participant(codes.DESTINATION_ROLE, is_requestor=False)
        source = self.as_source(is_requestor=True)
        self.record(events.queried(source, destination, sop_class_uid, identifier, transfer_syntax_uid))

    def alert_told(self, to: str, subject: Subject, *, by_mail: bool, why_not: str = "", **details: str) -> None:
        """An alert of a study was told, or could not be.

        Args:
            to: where it went.
        """
        outcome = Outcome.MINOR if why_not else Outcome.SUCCESS
        medium = codes.EMAIL if by_mail else codes.URI_MEDIUM
        studies = {subject.patient_id: [subject.study_instance_uid]}
        self.record(events.exported((self.process,), to, medium, studies, outcome, why_not, **details))

    def alert_acknowledged(self, subject: Subject, alert: str, by: str, how: str, address: str = "") -> None:
        """Somebody acknowledged an alert."""
        who = Participant(by or NONE, True, address=address)
        details = {"Alert": alert, "Acknowledged by way of": how}
        self.record(events.procedure_updated((who, self.process), subject, **details))

    def page_viewed(self, subject: Subject, alert: str, address: str) -> None:
        """Somebody looked at the page of an alert; who looks again within a minute counts once."""
        if self._views.count(address, alert):
            who = Participant("somebody with the link", True, address=address)
            self.record(events.instances_accessed(Action.READ, (who, self.process), subject, Alert=alert))

    def study_viewed(self, by: str, subject: Subject, address: str, what: str) -> None:
        """Somebody who is logged in saw whose study it is, or its images.

        Args:
            what: which page showed it.
        """
        who = Participant(by, True, address=address)
        self.record(events.instances_accessed(Action.READ, (who, self.process), subject, Shown=what))

    def feedback_given(self, by: str, subject: Subject, address: str, **details: str) -> None:
        """A reader said what a study shows."""
        who = Participant(by, True, address=address)
        self.record(events.procedure_updated((who, self.process), subject, **details))

    def authenticated(self, by: str, address: str, *, login: bool, why_not: str = "") -> None:
        """Somebody logged in or out, or was not let in; wrong passwords that come fast are counted."""
        who = Participant(by or NONE, True, address=address)
        kind = codes.LOGIN if login else codes.LOGOUT
        if not why_not:
            self.record(events.authenticated(kind, self.process, who), durable=True)
        elif times := self._logins.count(why_not, address, by):
            self._record_login_refused((why_not, address, by), times)

    def _record_login_refused(self, kind: Kind, times: int) -> None:
        why, address, by = kind
        who = Participant(by or NONE, True, address=address)
        said = why if times == 1 else f"{why}, {times} times"
        self.record(events.authenticated(codes.LOGIN, self.process, who, Outcome.MINOR, said), durable=True)

    def operated(self, by: str, address: str, command: str, studies: Sequence[str] = (), **details: str) -> None:
        """Somebody who is logged in did by a page what a command does."""
        details = {"By": by, "Address": address} | details
        who = Participant(by, True, address=address)
        self._record_command(command, who, studies, details)

    def commanded(self, command: str, studies: Sequence[str] = (), **details: str) -> None:
        """A person gave a command that changes what the node does: requeue, release, reject, resend ..."""
        self._record_command(command, self.person, studies, details)

    def _record_command(
        self, command: str, by: Participant, studies: Sequence[str], details: Mapping[str, str]
    ) -> None:
        done = Thing(
            f"ich-node:{command}",
            codes.URI,
            role="13",
            details=tuple((name, text) for name, text in details.items() if text),
            contains_studies=tuple(studies),
        )
        message = events.security_alert(codes.RESTRICTED_FUNCTION, (self.process,), by, done)
        self.record(message, durable=True)

    def files_exported(self, directory: Path, studies: Mapping[str, Sequence[str]]) -> None:
        """Result objects were written to a folder."""
        if studies:
            by, to = (self.person, self.process), directory.absolute().as_uri()
            self.record(events.exported(by, to, codes.URI_MEDIUM, studies), durable=True)

    def labels_exported(self, to: str, studies: Sequence[str], by: str = "", address: str = "") -> None:
        """What readers say of studies was written out as a table, by a command or by who is logged in.

        Args:
            to: a file's URI, or the address of a browser.
        """
        who = Participant(by, True, address=address) if by else self.person
        self._record_table(who, to, studies, "feedback of readers")

    def table_exported(self, to: str, studies: Sequence[str], table: str) -> None:
        """What the node knows of studies was written out by a command.

        Args:
            table: what it is.
        """
        self._record_table(self.person, to, studies, table)

    def _record_table(self, who: Participant, to: str, studies: Sequence[str], table: str) -> None:
        for start in range(0, max(len(studies), 1), _STUDIES_A_MESSAGE):
            some = {"": studies[start : start + _STUDIES_A_MESSAGE]}
            message = events.exported((who, self.process), to, codes.URI_MEDIUM, some, Table=table)
            self.record(message, durable=True)

    def files_deleted(self, paths: Iterable[Path], *, images: bool) -> None:
        """Files are about to be deleted, past their days or by a person: what they are is read from them."""
        if self._journal is None:
            return
        found: dict[str, dict[str, dict[str, int]]] = {}
        for one in filter(None, map(read_object, paths)):
            classes = found.setdefault(one.subject.patient_id, {}).setdefault(one.subject.study_instance_uid, {})
            classes[one.sop_class_uid] = classes.get(one.sop_class_uid, 0) + 1
        make = events.study_deleted if images else events.instances_deleted
        for patient_id, studies in found.items():
            self.record(make(self.process, studies, patient_id))

    def log_used(self, command: str, by: str = "", address: str = "") -> None:
        """Somebody read the trail.

        Args:
            by: who is logged in to the pages; empty for whose command it is.
        """
        uri = (self._state / FOLDER).absolute().as_uri()
        person = Participant(by, True, address=address) if by else self.person
        self.record(events.log_used(self.process, person, uri, command), durable=True)

    def close(self) -> None:
        """Let go of the file, where no stop is to be recorded."""
        self._record_refusals_left()
        if self._journal is not None:
            self._journal.close()


def open_trail(config: Config, role: str) -> AuditTrail:
    """Open the trail of this process. Nothing is written until something happens."""
    directory = config.state_directory / FOLDER
    journal = Journal(directory, f"{role}-{os.getpid()}") if config.audit.enabled else None
    return AuditTrail(journal, role, config.node.ae_title, config.state_directory)


def _user() -> str:
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return str(os.getuid())
