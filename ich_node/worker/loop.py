"""The job loop: claim series, read and score what has arrived, conclude what is due."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import count

from ich_node.audit import open_trail
from ich_node.config import Config
from ich_node.database import Database, Looks, open_database, prepare_database
from ich_node.decode import DecoderPool
from ich_node.decoding_rules import decline_by, decode_limits, eligibility_rules
from ich_node.errors import DeviceFailed, IchNodeError, ModelError, StorageFailed, StorageUnavailable
from ich_node.failpoint import reach
from ich_node.job_queue import (
    claim_series,
    fail_attempt,
    free_leases_of_the_dead,
    give_back,
    let_others_go_first,
    new_owner,
    release_lease,
    waiting_instances,
)
from ich_node.job_queue.model_choices import settle_choice, wanted_model
from ich_node.job_queue.workers import forget_worker, note_worker
from ich_node.log import EventLog
from ich_node.model.memory import demand_not_older, remember_model
from ich_node.models_in_use import active_choice, open_chosen_model, open_configured_model
from ich_node.pipeline import Model
from ich_node.plane_reader import PlaneReader
from ich_node.records import WORKER_NOTED_EVERY_S, ModelChoice, ModelUse, RunningWorker, SeriesJob
from ich_node.role_lock import holding_role
from ich_node.service import MemoryGivenBack, SystemdNotifier, stop_on_signals
from ich_node.stored_files import stored_files
from ich_node.timekeeping import keep_time
from ich_node.worker.bench import LEASE_S, Workbench, batch_of
from ich_node.worker.concluding import conclude, standing_of
from ich_node.worker.early import look_early
from ich_node.worker.models import ModelKeeper
from ich_node.worker.reading import read_series, submit_waiting
from ich_node.worker.scoring_planes import score_ready_planes
from ich_node.worker.second import SecondReader
from ich_node.worker.telling import tell_of_no_result, withdraw_results

_POLL_S = 0.1
_LOOK_S = 0.5
"""So often it looks for studies of which something is to be said, where nobody has written."""
_SERIES_AT_ONCE = 8
_INSTANCES_AT_ONCE = 16
_PLANES_AT_ONCE = 32
"""In one step, of all series together: what comes meanwhile and is urgent waits no longer than for these."""
_TELL_EVERY = 8
"""Steps: a queue that never empties must not keep a study without a result untold."""
_RETRY_S = 5.0
_DEVICE_RETRY_S = 60.0
"""Longer than a worker takes to start: one series that the device cannot score holds up no other."""

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
        models: ModelKeeper | None = None,
    ) -> None:
        self._models = models
        self._second = None if models is None else SecondReader(models)
        self._bench = Workbench(
            config=config,
            database=database,
            files=stored_files(config),
            model=model,
            decoder=decoder,
            reader=PlaneReader(decoder),
            rules=eligibility_rules(config),
            installation_uid=installation_uid,
            owner=new_owner(),
            alive=alive,
        )
        self._steps = count(1)
        self._memory = MemoryGivenBack()
        self._notes_at = 0.0
        """On the monotonic clock."""

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; an idle worker looks for work ten times a second."""
        with closing(Looks(self._bench.database, _LOOK_S)) as looks:
            self._run(stop, looks)
        with suppress(StorageUnavailable):  # else it is forgotten in minutes
            forget_worker(self._bench.database, self._bench.owner)

    def _run(self, stop: threading.Event, looks: Looks) -> None:
        while not stop.is_set():
            try:
                self.take_chosen_model()
                self._note_itself()
                busy = self.step(tell=looks.worth()) or self.read_again()
            except StorageUnavailable as error:  # what was being worked on is claimed again
                log.error("nothing can be written now; trying again", error)
                busy = False
            except DeviceFailed:  # no fault of the series: the next worker takes them at once, uncounted
                give_back(self._bench.database, self._bench.owner)
                raise
            self._bench.alive()
            self._memory.look()
            if not busy:
                stop.wait(_POLL_S)

    def _note_itself(self) -> None:
        """Say now and then what computes here, and how much memory that takes: pages and metrics show it."""
        if time.monotonic() < self._notes_at:
            return
        self._notes_at = time.monotonic() + WORKER_NOTED_EVERY_S
        engine, identity = self._bench.model.engine, self._bench.model.identity
        itself = RunningWorker(
            engine.name, engine.device[:128], *engine.memory(), identity.name, identity.version, identity.sha256
        )
        note_worker(self._bench.database, self._bench.owner, itself)

    def take_chosen_model(self) -> None:
        """Go on with the model that a person chose, once it is loaded; what is open is scored anew."""
        if self._models is not None and (model := self._models.look()) is not None:
            self._bench = dataclasses.replace(self._bench, model=model, striking=set())
            self._notes_at = 0.0
            _log_start(model)

    def read_again(self) -> bool:
        """Let the silent model score some of what was answered; False where there is nothing, or no such model."""
        return self._second is not None and self._second.step(self._bench, _attempt)

    def step(self, *, tell: bool = True) -> bool:
        """Do what there is to do now for a few series; False where there was nothing.

        Args:
            tell: of studies, too, that have no result, or none any more; False: nothing of them can have changed.
        """
        bench = self._bench
        withdrawn = tell and withdraw_results(bench, _attempt)  # before anything else is said of the study
        jobs = claim_series(
            bench.database,
            bench.owner,
            lease_s=LEASE_S,
            max_wait_s=bench.config.series.max_wait_s,
            limit=_SERIES_AT_ONCE,
        )
        if not jobs:
            return (tell and tell_of_no_result(bench, _attempt)) or withdrawn
        reach("series-claimed")
        if next(self._steps) % _TELL_EVERY == 0:
            tell_of_no_result(bench, _attempt)
        submitted = submit_waiting(bench, jobs, _INSTANCES_AT_ONCE)
        jobs = [job for job in jobs if self._guarded(job, lambda one: read_series(bench, one, submitted[one.id]))]
        most = max(batch_of(bench.model), _PLANES_AT_ONCE // max(1, len(jobs)))
        left: dict[int, int] = {}
        jobs = [job for job in jobs if self._guarded(job, lambda one: self._score(one, most, left))]
        behind = {job.study_id for job in jobs if job.due and left[job.id]}  # the best of a study may be among them
        due = self._best_first([job for job in jobs if job.due and job.study_id not in behind])
        failed = {job.id for job in due if not self._guarded(job, lambda one: conclude(bench, one))}
        reach("leases-before-release")
        release_lease(bench.database, [job.id for job in jobs if job.id not in failed], bench.owner)
        return True

    def _best_first(self, due: list[SeriesJob]) -> list[SeriesJob]:
        """Keep the order of the studies; of several series of a study, put the best first, once all are read."""
        of_study: dict[str, list[SeriesJob]] = {}
        for job in due:
            of_study.setdefault(job.study_instance_uid, []).append(job)
        ordered: list[SeriesJob] = []
        for jobs in of_study.values():
            standings = {job.id: standing_of(self._bench, job) for job in jobs} if len(jobs) > 1 else {}
            if None not in standings.values():
                ordered += sorted(jobs, key=lambda job: standings.get(job.id) or 0)
        return ordered

    def _score(self, job: SeriesJob, most: int, left: dict[int, int]) -> bool:
        ready = score_ready_planes(self._bench, job, closing=False, most=most)
        if ready is None:
            return False
        left[job.id] = ready
        if job.due and not (ready or self._waits(job)):
            self._bench.striking.discard(job.id)
        elif error := _attempt(lambda: look_early(self._bench, job)):
            self._bench.striking.discard(job.id)  # the result is told in its time
            log.error("no early alert", error, study=job.study_id, series=job.id)
        return True

    def _waits(self, job: SeriesJob) -> bool:
        """Say whether slices wait of which the result would have to be told early."""
        return job.id in self._bench.striking and bool(waiting_instances(self._bench.database, job.id, 1))

    def _guarded(self, job: SeriesJob, work: Callable[[SeriesJob], bool]) -> bool:
        """Do one step for a series; one that fails never stops the others, and after three attempts is FAILED.

        False where nothing more is to be done for it now.
        """
        answer: list[bool] = []
        try:
            error = _attempt(lambda: answer.append(work(job)))
        except DeviceFailed as failure:
            with suppress(StorageUnavailable):
                let_others_go_first(self._bench.database, job, self._bench.owner, str(failure), wait_s=_DEVICE_RETRY_S)
            raise
        if error is None:
            return answer[0]
        what = f"{type(error).__name__}: {error}" if isinstance(error, IchNodeError) else type(error).__name__
        final = fail_attempt(self._bench.database, job, self._bench.owner, what, retry_s=_RETRY_S)
        log.error("series failed" if final else "series will be tried again", error, study=job.study_id, series=job.id)
        return False


def _attempt(work: Callable[[], object]) -> Exception | None:
    """Do one job and give what went wrong with it, so that a poison job ends visibly and stops no other."""
    try:
        work()
    except (ModelError, DeviceFailed, StorageFailed, StorageUnavailable):  # no fault of the job
        raise
    except Exception as error:  # noqa: BLE001 - a broad catch (docs/architecture.md): a poison series stops no other
        return error
    return None


def run_worker(config: Config) -> None:
    """Work until a signal says stop.

    Raises:
        ModelError: the model bundle is missing or altered.
        DeviceFailed: the GPU is gone, or the network gives no numbers; a fresh process may do.
        StartError: the node cannot run here.
    """
    database = open_database(config.database_url, config.database.busy_timeout_s)
    notifier = SystemdNotifier()
    with (
        stop_on_signals() as stop,
        holding_role(config.host_directory, "work", alone=False),
        DecoderPool(decode_limits(config), decline_by(config), config.decode.processes) as decoder,
    ):
        installation_uid = prepare_database(database, config.state_directory, host_directory=config.host_directory)
        stored_files(config).claim(installation_uid)
        keep_time(config, database)
        free_leases_of_the_dead(database)
        chosen = active_choice(config, database)
        if chosen is None:
            model = _configured_model(config)
        else:
            chosen, model = _chosen_model(config, database, chosen)
        trail = open_trail(config, "work")
        trail.started(config)
        _log_start(model)
        notifier.ready(f"scoring with {model.identity.name} on {model.engine.name}")
        models = ModelKeeper(config, database, chosen)
        worker = Worker(config, database, model, decoder, installation_uid, notifier.alive, models)
        try:
            worker.run(stop)
        except ModelError as error:  # of one series, for all we know: it ends FAILED when three workers died on it
            raise DeviceFailed(str(error)) from error
        finally:
            models.close()
        notifier.stopping()
        trail.stopped()
    database.close()


def _configured_model(config: Config) -> Model:
    model = open_configured_model(config)
    _compare_with_before(config, model)
    return model


def _chosen_model(config: Config, database: Database, chosen: ModelChoice) -> tuple[ModelChoice, Model]:
    """Load the model that was chosen; where it is gone, the one that was asked for since.

    Whoever chose it said which version is to be used: an older one is no mistake.
    """
    try:
        model = open_chosen_model(config, chosen)
    except ModelError as error:
        wanted = wanted_model(database, ModelUse.ACTIVE, config.model.directory)
        if wanted is None or wanted.id == chosen.id:
            remedy = "`ich-node model use DIRECTORY` chooses another; then start the worker again"
            raise ModelError(f"{error}; {chosen.chosen_by} chose it: {remedy}") from error
        chosen, model = wanted, open_chosen_model(config, wanted)
        settle_choice(database, wanted)
    remember_model(config.state_directory, model.identity)
    return chosen, model


def _compare_with_before(config: Config, model: Model) -> None:
    """Refuse an older version of a model than was used here, and remember this one."""
    allow = config.model.allow_older
    if said := demand_not_older(config.state_directory, model.identity, allow_older=allow):
        log.warning("another model than before", name=model.identity.name, why=said)
    remember_model(config.state_directory, model.identity)


def _log_start(model: Model) -> None:
    identity = model.identity
    log.info("model ready", name=identity.name, version=identity.version, sha256=identity.sha256,
             signature=identity.signature,
             trained=identity.trained, engine=model.engine.name, device=model.engine.device,
             thresholds=identity.site_thresholds or "of the model")  # fmt: skip
    if not identity.trained:
        shown = "findings are shown as those of a TEST MODEL" if model.show_untrained else "no finding will be reported"
        log.warning(f"untrained model, {shown}", name=identity.name)
