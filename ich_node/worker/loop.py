"""The job loop: claim series, read and score what has arrived, conclude what is due."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from itertools import count

from ich_node.audit import open_trail
from ich_node.config import Config
from ich_node.database import Database, open_database, prepare_database
from ich_node.decode import DecodeLimits, DecoderPool
from ich_node.decode.instance import DeclineSlice
from ich_node.eligibility import slice_ineligibility
from ich_node.errors import DeviceFailed, IchNodeError, ModelError, StorageFailed, StorageUnavailable
from ich_node.failpoint import reach
from ich_node.job_queue import (
    claim_series,
    fail_attempt,
    free_leases_of_the_dead,
    give_back,
    new_owner,
    release_lease,
)
from ich_node.log import EventLog
from ich_node.model.memory import demand_not_older, remember_model
from ich_node.pipeline import Model, open_model
from ich_node.plane_reader import PlaneReader
from ich_node.records import EligibilityRules, SeriesJob
from ich_node.role_lock import holding_role
from ich_node.service import SystemdNotifier, stop_on_signals
from ich_node.timekeeping import keep_time
from ich_node.worker.bench import LEASE_S, Workbench
from ich_node.worker.concluding import conclude, standing_of
from ich_node.worker.early import look_early
from ich_node.worker.reading import read_series, submit_waiting
from ich_node.worker.scoring_planes import score_ready_planes
from ich_node.worker.telling import tell_of_no_result, withdraw_results

_POLL_S = 0.1
_SERIES_AT_ONCE = 8
_INSTANCES_AT_ONCE = 16
_PLANES_AT_ONCE = 32
"""In one step, of all series together: what comes meanwhile and is urgent waits no longer than for these."""
_TELL_EVERY = 8
"""Steps: a queue that never empties must not keep a study without a result untold."""
_RETRY_S = 5.0

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
        self._bench = Workbench(
            config=config,
            database=database,
            model=model,
            decoder=decoder,
            reader=PlaneReader(decoder),
            rules=eligibility_rules(config),
            installation_uid=installation_uid,
            owner=new_owner(),
            alive=alive,
        )
        self._steps = count(1)

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; an idle worker looks for work ten times a second."""
        while not stop.is_set():
            try:
                busy = self.step()
            except StorageUnavailable as error:  # what was being worked on is claimed again
                log.error("nothing can be written now; trying again", error)
                busy = False
            except DeviceFailed:  # no fault of the series: the next worker takes them at once, uncounted
                give_back(self._bench.database, self._bench.owner)
                raise
            self._bench.alive()
            if not busy:
                stop.wait(_POLL_S)

    def step(self) -> bool:
        """Do what there is to do now for a few series; False where there was nothing."""
        bench = self._bench
        withdrawn = withdraw_results(bench, _attempt)  # before anything else is said of the study
        jobs = claim_series(
            bench.database,
            bench.owner,
            lease_s=LEASE_S,
            max_wait_s=bench.config.series.max_wait_s,
            limit=_SERIES_AT_ONCE,
        )
        if not jobs:
            return tell_of_no_result(bench, _attempt) or withdrawn
        reach("series-claimed")
        if next(self._steps) % _TELL_EVERY == 0:
            tell_of_no_result(bench, _attempt)
        submitted = submit_waiting(bench, jobs, _INSTANCES_AT_ONCE)
        jobs = [job for job in jobs if self._guarded(job, lambda one: read_series(bench, one, submitted[one.id]))]
        most = max(bench.model.engine.batch_size, _PLANES_AT_ONCE // max(1, len(jobs)))
        jobs = [job for job in jobs if self._guarded(job, lambda one: self._score(one, most))]
        due = self._best_first([job for job in jobs if job.due])
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

    def _score(self, job: SeriesJob, most: int) -> bool:
        ours = score_ready_planes(self._bench, job, closing=False, most=most) is not None
        if job.due:
            self._bench.striking.discard(job.id)
        elif ours and (error := _attempt(lambda: look_early(self._bench, job))):
            self._bench.striking.discard(job.id)  # the result is told in its time
            log.error("no early alert", error, series=job.id)
        return ours

    def _guarded(self, job: SeriesJob, work: Callable[[SeriesJob], bool]) -> bool:
        """Do one step for a series; one that fails never stops the others, and after three attempts is FAILED.

        False where nothing more is to be done for it now.
        """
        answer: list[bool] = []
        if (error := _attempt(lambda: answer.append(work(job)))) is None:
            return answer[0]
        what = f"{type(error).__name__}: {error}" if isinstance(error, IchNodeError) else type(error).__name__
        final = fail_attempt(self._bench.database, job, self._bench.owner, what, retry_s=_RETRY_S)
        log.error("series failed" if final else "series will be tried again", error, series=job.id)
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
        holding_role(config.state_directory, "work", alone=False),
        DecoderPool(decode_limits(config), decline_by(config), config.decode.processes) as decoder,
    ):
        installation_uid = prepare_database(database, config.state_directory)
        keep_time(config, database)
        free_leases_of_the_dead(database)
        model = open_model(
            config.model.directory,
            config.model.engine,
            threads=config.model.threads,
            show_untrained=config.model.show_findings_of_untrained_model,
            cache=config.state_directory / "cache",
            public_key=config.model.public_key_file,
        )
        _compare_with_before(config, model)
        trail = open_trail(config, "work")
        trail.started(config)
        _log_start(model)
        notifier.ready(f"scoring with {model.identity.name} on {model.engine.name}")
        worker = Worker(config, database, model, decoder, installation_uid, notifier.alive)
        try:
            worker.run(stop)
        except ModelError as error:  # of one series, for all we know: it ends FAILED when three workers died on it
            raise DeviceFailed(str(error)) from error
        notifier.stopping()
        trail.stopped()
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


def eligibility_rules(config: Config) -> EligibilityRules:
    """Give what the site decides of eligibility."""
    settings = config.eligibility
    return EligibilityRules(settings.minimum_age_years, settings.pixel_gate, settings.no_contrast_values)


def decline_by(config: Config) -> DeclineSlice:
    """Give the judgement of a slice by its header, as the decoding children need it."""
    return partial(slice_ineligibility, rules=eligibility_rules(config))


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
             trained=identity.trained, engine=model.engine.name, device=model.engine.device)  # fmt: skip
    if not identity.trained:
        shown = "findings are shown as those of a TEST MODEL" if model.show_untrained else "no finding will be reported"
        log.warning(f"untrained model, {shown}", name=identity.name)
