"""The job loop: claim series, decode and score what has arrived, conclude what is whole."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ich_node.config import Config
from ich_node.database import Database, open_database, prepare_database
from ich_node.decode import DecodeLimits, DecoderPool, DecodeTask
from ich_node.durable import sync_directory, write_durably
from ich_node.eligibility import slice_ineligibility
from ich_node.errors import DatabaseBusy, IchNodeError, ModelError
from ich_node.job_queue import (
    Conclusion,
    SavedObject,
    UnreportedStudy,
    claim_series,
    close_series,
    conclude_series,
    fail_attempt,
    free_leases_of_the_dead,
    load_content,
    new_owner,
    next_revision,
    postpone,
    release_lease,
    report_not_analysed,
    save_scores,
    unreported_studies,
    waiting_instances,
)
from ich_node.log import EventLog
from ich_node.pipeline import Analysis, Model, analyse_series, open_model, report, score_slices, scored_instance
from ich_node.records import (
    Completeness,
    NotAnalysedReason,
    ReportIdentity,
    ResultObject,
    ScoredInstance,
    SeriesContent,
    SeriesJob,
    SeriesState,
    Step,
    StoredInstance,
    TriageFinding,
)
from ich_node.routing import destinations_for
from ich_node.service import SystemdNotifier, stop_on_signals
from ich_node.triage import not_analysed

_LEASE_S = 60.0
_POLL_S = 0.1
_SERIES_AT_ONCE = 8
_INSTANCES_AT_ONCE = 16
_RETRY_S = 5.0

_Submitted = tuple[StoredInstance, DecodeTask]

log = EventLog("work")


class Worker:
    """Everything between the spool and the outbox."""

    def __init__(
        self,
        config: Config,
        database: Database,
        model: Model,
        decoder: DecoderPool,
        installation_uid: str,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._alive = alive
        """Called after every slice, however long it took: decoding may time out on each of many."""
        self._config = config
        self._database = database
        self._model = model
        self._decoder = decoder
        self._installation_uid = installation_uid
        self._owner = new_owner()

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; an idle worker looks for work ten times a second."""
        while not stop.is_set():
            try:
                busy = self.step()
            except DatabaseBusy as error:  # what was being worked on is claimed again
                log.error("the database stays locked; trying again", error)
                busy = False
            self._alive()
            if not busy:
                stop.wait(_POLL_S)

    def step(self) -> bool:
        """Do what there is to do now for a few series; False where there was nothing."""
        jobs = claim_series(
            self._database,
            self._owner,
            lease_s=_LEASE_S,
            max_wait_s=self._config.series.max_wait_s,
            limit=_SERIES_AT_ONCE,
        )
        if not jobs:
            return self._tell_not_analysed()
        submitted = self._submit(jobs)
        worked = [job.id for job in jobs if self._guarded(job, submitted[job.id])]
        release_lease(self._database, worked, self._owner)
        return True

    def _guarded(self, job: SeriesJob, submitted: Sequence[_Submitted]) -> bool:
        """Score and conclude a series; one that fails never stops the others, and after three attempts is FAILED."""

        def work() -> None:
            self._score(job, submitted)
            if job.due:
                self._conclude(job)

        if (error := _attempt(work)) is None:
            return True
        what = f"{type(error).__name__}: {error}" if isinstance(error, IchNodeError) else type(error).__name__
        final = fail_attempt(self._database, job, self._owner, what, retry_s=_RETRY_S)
        log.error("series failed" if final else "series will be tried again", error, series=job.id)
        return False

    # ------------------------------------------------------------------------ while slices arrive

    def _submit(self, jobs: Sequence[SeriesJob]) -> dict[int, list[_Submitted]]:
        """Have children decode what waits, ahead of the network."""
        submitted: dict[int, list[_Submitted]] = {}
        room = _INSTANCES_AT_ONCE
        for job in jobs:
            waiting = waiting_instances(self._database, job.id, room) if room else []
            submitted[job.id] = [(one, self._decoder.submit(self._file(one))) for one in waiting]
            room -= len(waiting)
        return submitted

    def _score(self, job: SeriesJob, submitted: Sequence[_Submitted]) -> None:
        """Score slices as their decoding ends; save after every micro-batch."""
        size = max(1, self._model.engine.batch_size)
        for start in range(0, len(submitted), size):
            decoded = [(instance, task.result()) for instance, task in submitted[start : start + size]]
            planes = score_slices(tuple(one for _, result in decoded for one in result.slices), self._model)
            scored = []
            for instance, result in decoded:
                mine, planes = planes[: len(result.slices)], planes[len(result.slices) :]
                scored.append(scored_instance(instance.id, result, mine))
                _log_instance(job, scored[-1])
            self._alive()
            sha256 = self._model.identity.sha256
            if not save_scores(self._database, job, self._owner, scored, model_sha256=sha256, lease_s=_LEASE_S):
                log.warning("lease lost while scoring; another worker has the series", series=job.id)
                return

    # ------------------------------------------------------------------- when a series has arrived

    def _conclude(self, job: SeriesJob) -> None:
        if not close_series(self._database, job, self._owner, lease_s=_LEASE_S):
            return
        closed_at = datetime.now(UTC)
        content = load_content(self._database, job.id, self._model.identity.sha256)
        analysis = analyse_series(content, self._model)
        if analysis.could_gain and not job.last_chance:
            postpone(self._database, job, self._owner, self._config.series.max_wait_s)
            return
        steps = (
            Step("first slice received", job.first_received_at),
            Step("last slice received", job.last_received_at),
            Step("series closed", closed_at),
            Step("analysed", datetime.now(UTC)),
        )
        conclusion = self._conclusion(job, content, analysis, steps)
        if conclude_series(self._database, job, self._owner, conclusion):
            _log_conclusion(job, conclusion)
        else:
            log.info("conclusion void, the series changed", series=job.id)

    def _conclusion(
        self, job: SeriesJob, content: SeriesContent, analysis: Analysis, steps: Sequence[Step]
    ) -> Conclusion:
        finding, identity = analysis.finding, self._model.identity
        common: dict[str, Any] = {
            "reason": finding.reason,
            "detail": finding.reason_detail,
            "complete": finding.completeness.complete,
            "head_expected": analysis.head_expected,
        }
        if not content.planes or _is_declined(finding):
            return Conclusion(SeriesState.NOT_ANALYSED, **common, steps=_times(steps))
        revision = next_revision(self._database, job, finding.triage)
        objects: tuple[SavedObject, ...] = ()
        if revision is not None:
            report_identity = ReportIdentity(self._installation_uid, job.study_instance_uid, revision)
            read = {plane.sop_instance_uid for plane in content.planes}
            files = [self._file(one) for one in content.instances if one.sop_instance_uid in read]
            objects = self._save(report(report_identity, finding, files, identity, steps))
            steps = (*steps, Step("report saved", datetime.now(UTC)))
        return Conclusion(
            SeriesState.CONCLUDED,
            triage=finding.triage,
            **common,
            planes=len(content.planes),
            finding=finding_as_json(finding),
            model=dataclasses.asdict(identity),
            model_sha256=identity.sha256,
            steps=_times(steps),
            revision=revision,
            objects=objects,
            destinations=tuple(destinations_for(self._config, job.calling_ae_title, job.remote_address)),
        )

    # ------------------------------------------------------------- studies that end without a result

    def _tell_not_analysed(self) -> bool:
        studies = unreported_studies(self._database)
        for study in studies:
            self._report_not_analysed(study)
        return bool(studies)

    def _report_not_analysed(self, study: UnreportedStudy) -> None:
        objects: list[SavedObject] = []
        if error := _attempt(lambda: objects.extend(self._build_not_analysed(study))):
            log.error("no report on a study without a result; the status tells of it", error, study=study.id)
        destinations = destinations_for(self._config, study.calling_ae_title, study.remote_address)
        if report_not_analysed(self._database, study, objects, destinations):
            log.warning("study not analysed", study=study.id, reason=study.reason.name, reported=bool(objects))

    def _build_not_analysed(self, study: UnreportedStudy) -> tuple[SavedObject, ...]:
        content = load_content(self._database, study.series_id, None)
        finding = not_analysed(study.reason, study.detail, Completeness())
        identity = ReportIdentity(self._installation_uid, study.study_instance_uid, study.revision)
        files = [self._file(one) for one in content.instances]
        return self._save(report(identity, finding, files, None, ()))

    # ----------------------------------------------------------------------------------------- files

    def _file(self, instance: StoredInstance) -> Path:
        return self._config.state_directory / instance.path

    def _save(self, objects: Sequence[ResultObject]) -> tuple[SavedObject, ...]:
        folder = self._config.state_directory / "results"
        folder.mkdir(exist_ok=True)
        sync_directory(folder.parent)
        saved = []
        for preference, one in enumerate(objects):
            path = folder / f"{uuid.uuid4().hex}.dcm"
            write_durably(path, [one.part10])
            saved.append(
                SavedObject(
                    kind=one.kind,
                    encoding=one.encoding,
                    preference=preference,
                    sop_class_uid=one.sop_class_uid,
                    sop_instance_uid=one.sop_instance_uid,
                    sha256=hashlib.sha256(one.part10).hexdigest(),
                    path=str(path.relative_to(self._config.state_directory)),
                )
            )
        return tuple(saved)


def _attempt(work: Callable[[], object]) -> Exception | None:
    """Do one job and give what went wrong with it, so that a poison job ends visibly and stops no other."""
    try:
        work()
    except (ModelError, DatabaseBusy):  # no fault of the job
        raise
    except Exception as error:  # noqa: BLE001 - one of the two broad catches
        return error
    return None


def run_worker(config: Config) -> None:
    """Work until a signal says stop.

    Raises:
        ModelError: the model bundle is missing or altered.
        StartError: the node cannot run here.
    """
    database = open_database(config.database_url, config.database.busy_timeout_s)
    notifier = SystemdNotifier()
    with (
        stop_on_signals() as stop,
        DecoderPool(decode_limits(config), slice_ineligibility, config.decode.processes) as decoder,
    ):
        installation_uid = prepare_database(database, config.state_directory)
        free_leases_of_the_dead(database)
        model = open_model(
            config.model.directory,
            config.model.engine,
            threads=config.model.threads,
            show_untrained=config.model.show_findings_of_untrained_model,
            cache=config.state_directory / "cache",
        )
        _log_start(model)
        notifier.ready(f"scoring with {model.identity.name} on {model.engine.name}")
        Worker(config, database, model, decoder, installation_uid, notifier.alive).run(stop)
        notifier.stopping()
    database.close()


def decode_limits(config: Config) -> DecodeLimits:
    """Give the limits of the decoding children."""
    return DecodeLimits(
        max_rows=config.decode.maximum_rows,
        max_columns=config.decode.maximum_columns,
        max_frames=config.decode.maximum_frames,
        seconds_per_object=config.decode.timeout_s,
        address_space_bytes=config.decode.memory_mib * 1024 * 1024,
    )


def finding_as_json(finding: TriageFinding) -> dict[str, Any]:
    """Give what status and web show of a finding."""
    return {
        "probabilities": finding.probabilities,
        "presence": finding.presence,
        "thresholds": {name: dataclasses.asdict(pair) for name, pair in finding.thresholds.items()},
        "gaps_mm": [[gap.from_mm, gap.to_mm] for gap in finding.completeness.gaps],
        "unreadable": finding.completeness.unreadable,
        "slices": [dataclasses.asdict(one) for one in finding.slices],
        "test_model": finding.test_model,
    }


def _is_declined(finding: TriageFinding) -> bool:
    """Tell a series that is no head CT from one that an untrained model has nothing to say of."""
    return finding.reason is not None and finding.reason is not NotAnalysedReason.UNTRAINED_MODEL


def _times(steps: Sequence[Step]) -> dict[str, float]:
    return {step.name: step.at.timestamp() for step in steps}


def _log_instance(job: SeriesJob, scored: ScoredInstance) -> None:
    fields = {"series": job.id, "instance": scored.instance_id}
    if scored.reason is None:
        repairs = sorted({repair for one in scored.facts for repair in one.repairs})
        log.debug("slice scored", **fields, planes=len(scored.planes))
        if repairs:
            log.warning("slice repaired", **fields, repairs=repairs)
    else:
        log.warning("slice not scored", **fields, state=scored.state, reason=scored.reason.name)


def _log_conclusion(job: SeriesJob, conclusion: Conclusion) -> None:
    log.info(
        "series concluded" if conclusion.state is SeriesState.CONCLUDED else "series not analysed",
        series=job.id,
        triage=conclusion.triage,
        reason=conclusion.reason.name if conclusion.reason else None,
        complete=conclusion.complete,
        planes=conclusion.planes,
        revision=conclusion.revision,
    )


def _log_start(model: Model) -> None:
    identity = model.identity
    log.info("model ready", name=identity.name, version=identity.version, sha256=identity.sha256,
             trained=identity.trained, engine=model.engine.name, device=model.engine.device)  # fmt: skip
    if not identity.trained:
        shown = "findings are shown as those of a TEST MODEL" if model.show_untrained else "no finding will be reported"
        log.warning(f"untrained model, {shown}", name=identity.name)
