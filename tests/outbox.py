"""Studies with a saved report that waits in the outbox, without the work that leads to it; and odd peers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from sqlalchemy import update

from ich_node.config import Config, parse_config
from ich_node.database import Database, DeliveryRow, SeriesRow, open_database, prepare_database
from ich_node.deliverer import Deliverer
from ich_node.job_queue import (
    Conclusion,
    SavedObject,
    claim_series,
    close_series,
    conclude_series,
    load_content,
    new_owner,
    plan_report,
    register_instance,
)
from ich_node.queries import DeliveryStatus, NodeStatus, node_status
from ich_node.records import (
    OPEN_SERIES,
    Destination,
    ReceivedInstance,
    ReportIdentity,
    SeriesState,
    StudyContext,
    Triage,
)
from ich_node.report.structured_report import ENCODINGS, build_reports
from ich_node.routing import configured_destinations
from tests.ct_series import headers, make_request, positive
from tests.running import settings, wait_for

INSTALLATION = "2.25.77"


@dataclass
class Outbox:
    """A database with studies to deliver, and the deliverer."""

    config: Config
    database: Database
    deliverer: Deliverer

    def add_study(
        self,
        uid: str | None = None,
        destinations: list[Destination] | None = None,
        revision: int = 1,
        triage: Triage | None = Triage.POSITIVE,
        finding: dict[str, Any] | None = None,
        **of_image: Any,
    ) -> str:
        """Conclude a study with a real report; return its Study Instance UID."""
        uid = uid or str(generate_uid())
        owner = new_owner()
        received = replace(received_instance(uid), **of_image)
        register_instance(self.database, received, max_wait_s=-1.0, analysed=False)
        (job,) = claim_series(self.database, owner, lease_s=60, max_wait_s=0, limit=8)
        assert close_series(self.database, job, owner, lease_s=60)
        plan = plan_report(self.database, job, triage, None, received.sha256)
        conclusion = Conclusion(
            SeriesState.CONCLUDED,
            triage=triage,
            finding=finding,
            complete=True,
            head_expected=True,
            stamp=load_content(self.database, job.id, None).stamp,
            fingerprint=received.sha256,
            plan=replace(plan, revision=revision),
            objects=save_report(self.config.state_directory, uid, revision),
            destinations=tuple(configured_destinations(self.config) if destinations is None else destinations),
        )
        assert conclude_series(self.database, job, owner, conclusion)
        return uid

    def rest(self) -> None:
        """Conclude what is open: nobody works here, and what a test had analysed again would be claimed next."""
        with self.database.writing() as connection:
            waiting = update(SeriesRow).where(SeriesRow.state.in_(OPEN_SERIES))
            connection.execute(waiting.values(state=SeriesState.CONCLUDED))

    def deliveries(self, uid: str | None = None) -> list[DeliveryStatus]:
        """Outbox rows, of one study or of all, the oldest first."""
        studies = reversed(self.status(uid).studies)
        return [delivery for study in studies for delivery in study.deliveries]

    def status(self, uid: str | None = None) -> NodeStatus:
        return node_status(self.database, limit=1000, uid=uid)

    def deliver_until(self, condition: Callable[[], Any], what: str) -> None:
        """Let the deliverer work until a condition holds."""

        def step() -> Any:
            self.deliverer.step()
            return condition()

        wait_for(step, what)

    def deliver_until_state(self, state: str) -> list[DeliveryStatus]:
        """Let the deliverer work until every row has a state."""
        self.deliver_until(lambda: {one.state for one in self.deliveries()} == {state}, f"all deliveries {state}")
        return self.deliveries()

    def age(self, days: float) -> None:
        """Make every outbox row older."""
        with self.database.writing() as connection:
            connection.execute(update(DeliveryRow).values(created_at=time.time() - days * 86400))


@contextmanager
def outbox(folder: Path, *ports: int, **sections: Any) -> Iterator[Outbox]:
    """Open an outbox with the destinations pacs-0, pacs-1 ... at some ports of this machine."""
    destinations = [(f"pacs-{number}", port) for number, port in enumerate(ports)]
    config = parse_config(settings(folder, Path("no-model"), destinations=destinations, **sections))
    folder.mkdir(parents=True, exist_ok=True)
    database = open_database(config.database_url)
    prepare_database(database, folder)
    try:
        yield Outbox(config, database, Deliverer(config, database))
    finally:
        database.close()


def save_report(state: Path, study_instance_uid: str, revision: int) -> tuple[SavedObject, ...]:
    """Write a real report, in all its encodings, to where the worker puts it."""
    request = _request()
    identity = ReportIdentity(INSTALLATION, study_instance_uid, revision)
    study = StudyContext(study_instance_uid, request.study.evidence)
    folder = state / "results"
    folder.mkdir(exist_ok=True)
    saved = []
    for preference, one in enumerate(build_reports(replace(request, identity=identity, study=study))):
        path = folder / f"{one.sop_instance_uid}.dcm"
        path.write_bytes(one.part10)
        saved.append(
            SavedObject(one.kind, one.encoding, preference, one.sop_class_uid, one.sop_instance_uid,
                        one.series_instance_uid, hashlib.sha256(one.part10).hexdigest(), str(path.relative_to(state)))
        )  # fmt: skip
    return tuple(saved)


@contextmanager
def peer(
    answer: Callable[[evt.Event], int],
    ae_title: str = "PACS",
    *,
    called_must_be: str | None = None,
    port: int = 0,
    classes: Sequence[str] = tuple(uid for _, uid in ENCODINGS),
):
    """Run a storage SCP whose every C-STORE is answered by a function; give its port."""
    entity = AE(ae_title=ae_title)
    for uid in classes:
        entity.add_supported_context(uid)
    if called_must_be is not None:
        entity.ae_title = called_must_be
        entity.require_called_aet = True
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)])
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        for association in server.active_associations:
            association.abort()
        server.shutdown()


@cache
def _request():
    evidence = headers(12)
    return make_request(evidence, positive(evidence))


def received_instance(study_instance_uid: str) -> ReceivedInstance:
    """One image of a study, safe on disk."""
    sop_instance_uid = str(generate_uid())
    return ReceivedInstance(
        study_instance_uid=study_instance_uid,
        series_instance_uid=f"{study_instance_uid}.1"[:64],
        sop_instance_uid=sop_instance_uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        modality="CT",
        sha256=hashlib.sha256(sop_instance_uid.encode()).hexdigest(),
        size_bytes=1,
        path=f"spool/{sop_instance_uid}.dcm",
        calling_ae_title="SCANNER1",
        remote_address="127.0.0.1",
    )
