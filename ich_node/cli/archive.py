"""``ich-node score-archive``: an archive in, a table of scores out; on this machine, or spread over several by Ray."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ich_node.cli.archive_pacs import fault_of_pacs, is_pacs, positive, request_of, with_pacs
from ich_node.cli.node import Commands, with_config
from ich_node.cli.study import config_or_defaults, with_model
from ich_node.cli.terminal import printable

if TYPE_CHECKING:
    from ich_node.archive_scoring.from_pacs import PacsRequest
    from ich_node.archive_scoring.progress import Progress
    from ich_node.archive_scoring.running import ArchiveSummary, ArchiveTask, ScoreAll
    from ich_node.archive_scoring.scorer import ScoringSetup
    from ich_node.config import Config
    from ich_node.decode import DecoderPool

_ROLE = "score-archive"
_MOST_DECODERS = 16


def add_command(commands: Commands) -> None:
    """Add score-archive."""
    text = "score every series of an archive into a Parquet file, resumable, on one machine or many"
    archive = commands.add_parser(_ROLE, help=text, description=text)
    archive.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="folders, zip files or DICOM files, or a PACS: pacs://AE_TITLE"
    )
    archive.add_argument("--scores", type=Path, required=True, metavar="FILE", help="Parquet file to write")
    archive.add_argument("--work", type=Path, metavar="DIR", help="for index and parts (default: FILE.work)")
    archive.add_argument("--part", type=positive, default=50, metavar="N", help="series kept at once (default 50)")
    archive.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS", help="score on a Ray cluster (default: one on this machine)"
    )
    archive.add_argument(
        "--workers", type=positive, metavar="N", help="models on Ray (default: one for each GPU, or for every 4 cores)"
    )
    with_pacs(archive)
    with_model(archive)
    with_config(archive)
    archive.set_defaults(run=_score_archive)


@dataclass(frozen=True, slots=True)
class _Order:
    task: ArchiveTask
    config: Config
    request: PacsRequest | None
    """None: of files."""


def _score_archive(options: argparse.Namespace) -> int:
    from ich_node.role_lock import holding_role

    if (fault := fault_of_pacs(options) or _fault(options)) is not None:
        sys.stderr.write(f"ich-node score-archive: {printable(fault)}\n")
        return 2
    config = config_or_defaults(options)
    os.umask(0o077)
    task = _task(options, config)
    order = _Order(task, config, request_of(options, config) if is_pacs(options.sources[0]) else None)
    with holding_role(task.work, _ROLE, wait_s=0.0):
        summary = _here(options, order) if options.ray is None else _on_ray(options, order)
    sys.stdout.write(printable(_in_words(summary, task)))
    return 1 if summary.bad_files or summary.failed else 0


def _fault(options: argparse.Namespace) -> str | None:
    """Say what is wrong with the words of the command; None where nothing is."""
    for one in options.sources:
        if not is_pacs(one) and not Path(one).exists():
            return f"{one}: no such file or folder"
    if not options.scores.parent.is_dir():
        return f"{options.scores.parent}: no such folder; make it first"
    if options.scores.is_dir():
        return f"{options.scores}: is a folder; name a file, such as scores.parquet"
    if options.workers and options.ray is None:
        return "--workers is for --ray; without it one process scores"
    return None


def _task(options: argparse.Namespace, config: Config) -> ArchiveTask:
    from ich_node.archive_scoring.running import ArchiveTask

    scores = options.scores.absolute()
    work = options.work or scores.with_name(f"{scores.name}.work")
    sources = tuple(Path(one).absolute() for one in options.sources if not is_pacs(one))
    return ArchiveTask(sources, scores, work.absolute(), options.part, config.receiver.maximum_object_mib * 1024 * 1024)


def _setup(options: argparse.Namespace, config: Config) -> ScoringSetup:
    from ich_node.archive_scoring.scorer import ScoringSetup
    from ich_node.decoding_rules import decline_by, decode_limits, eligibility_rules
    from ich_node.model.site_thresholds import signed_thresholds

    return ScoringSetup(
        model_directory=(options.model or config.model.directory).absolute(),
        engine=options.engine or config.model.engine,
        threads=config.model.threads,
        show_untrained=options.test_model or config.model.show_findings_of_untrained_model,
        public_key=config.model.public_key_file,
        site_thresholds=signed_thresholds(config.state_directory),
        limits=decode_limits(config),
        decline=decline_by(config),
        rules=eligibility_rules(config),
        decoders=max(config.decode.processes, min(_MOST_DECODERS, len(os.sched_getaffinity(0)))),
        largest_member=config.receiver.maximum_object_mib * 1024 * 1024,
    )


def _here(options: argparse.Namespace, order: _Order) -> ArchiveSummary:
    from ich_node.archive_scoring.scorer import open_scorer

    setup = _setup(options, order.config)
    with open_scorer(setup, order.task.unpacked) as scorer:
        digest = setup.digest(scorer.identity.sha256)
        return _score(order, digest, scorer.decoder, lambda series: map(scorer.score, series))


def _on_ray(options: argparse.Namespace, order: _Order) -> ArchiveSummary:
    from ich_node.archive_scoring.ray_pool import RayPool
    from ich_node.decode import DecoderPool
    from ich_node.model.bundle import load_bundle

    setup = _setup(options, order.config)
    identity = load_bundle(setup.model_directory, setup.public_key).identity
    pool = RayPool(setup, identity, options.ray, options.workers)
    with DecoderPool(setup.limits, setup.decline, setup.decoders) as decoder:
        return _score(order, setup.digest(identity.sha256), decoder, pool.score)


def _score(order: _Order, digest: str, decoder: DecoderPool, score_all: ScoreAll) -> ArchiveSummary:
    from ich_node.archive_scoring.progress import Progress
    from ich_node.archive_scoring.running import score_archive

    progress = Progress(sys.stderr)
    if order.request is None:
        return score_archive(order.task, digest, decoder, score_all, progress)
    return _score_pacs(order, order.request, digest, decoder, score_all, progress)


def _score_pacs(
    order: _Order, request: PacsRequest, digest: str, decoder: DecoderPool, score_all: ScoreAll, progress: Progress
) -> ArchiveSummary:
    from ich_node.archive_scoring.from_pacs import score_pacs
    from ich_node.audit import open_trail
    from ich_node.log import start_logging

    start_logging("WARNING", _ROLE)
    trail = open_trail(order.config, _ROLE)
    trail.commanded(_ROLE, PACS=request.access.pacs.ae_title, From=f"{request.first}", To=f"{request.last}")
    try:
        return score_pacs(order.task, request, digest, decoder, score_all, progress, order.config, trail)
    finally:
        trail.close()


def _in_words(summary: ArchiveSummary, task: ArchiveTask) -> str:
    not_analysed = summary.series - summary.analysed - summary.failed
    lines = [
        f"{task.scores}: {summary.series} series, {summary.analysed} analysed, {not_analysed} not analysed, "
        f"{summary.failed} failed; {summary.scored_before} of them were scored before"
    ]
    if summary.bad_files:
        lines.append(f"{task.bad}: {summary.bad_files} files could not be read")
    if summary.not_whole:
        lines.append(f"{summary.not_whole} series did not come whole from the PACS (column not_received)")
    if summary.failed or summary.not_whole:
        lines.append("run the command again to try once more what failed")
    return "\n".join(lines) + "\n"
