"""Commands for images: score, phantom, and the small PACS."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ich_node.cli.models import DEFAULT_BUNDLE
from ich_node.cli.node import Commands, with_config
from ich_node.cli.terminal import printable
from ich_node.config import DEFAULT_PATHS, Config, find_config, load_config

if TYPE_CHECKING:
    from ich_node.scoring import ScoredSeries, Scores

_LESIONS = ("none", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")


def add_commands(commands: Commands) -> None:
    """Add score, phantom, pacs and demo."""
    _add_score(commands)
    phantom = commands.add_parser("phantom", help="write a synthetic head CT as DICOM files")
    phantom.add_argument("directory", type=Path, help="folder to write to")
    phantom.add_argument("--lesion", choices=_LESIONS, default="none", help="default none")
    phantom.add_argument("--slices", type=int, default=32, metavar="N", help="default 32")
    phantom.add_argument("--seed", type=int, default=0, metavar="N", help="another head (default 0)")
    phantom.set_defaults(run=_phantom)

    pacs = commands.add_parser("pacs", help="run a small PACS for tests and first hours: it stores what it is sent")
    pacs.add_argument("--port", type=int, required=True, help="TCP port")
    pacs.add_argument("--directory", type=Path, required=True, help="folder to store in")
    pacs.add_argument("--ae-title", default="PACS", help="default PACS")
    pacs.set_defaults(run=_pacs)

    demo = commands.add_parser("demo", help="show the whole node at work beside a small PACS (`make demo`)")
    demo.add_argument("--data", type=Path, metavar="DIR", help="folder of real DICOM (default: a synthetic head CT)")
    demo.add_argument("--lesion", choices=_LESIONS[1:], default="intraparenchymal", help="of the synthetic head CT")
    demo.add_argument("--model", type=Path, default=DEFAULT_BUNDLE, metavar="DIR", help=f"default {DEFAULT_BUNDLE}")
    demo.add_argument("--folder", type=Path, default=Path("var/demo"), metavar="DIR", help="default var/demo")
    demo.add_argument("--test-model", action="store_true", help="show findings of an untrained model")
    demo.set_defaults(run=_demo)


def _add_score(commands: Commands) -> None:
    score = commands.add_parser("score", help="analyse files or folders, without a network")
    score.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="DICOM files, or folders of them")
    score.add_argument("--json", action="store_true", help="print a list with one entry per series")
    score.add_argument("--output", type=Path, metavar="DIR", help="write the result objects there")
    with_model(score)
    with_config(score)
    score.set_defaults(run=_score)


def with_model(parser: argparse.ArgumentParser) -> None:
    """Give a command the options that say which model scores, and on what."""
    parser.add_argument("--model", type=Path, metavar="DIR", help="model bundle (default: of the configuration)")
    parser.add_argument(
        "--engine", choices=("auto", "cuda", "openvino", "openvino-int8", "torch"),
        help="default: of the configuration",
    )  # fmt: skip
    parser.add_argument(
        "--test-model", action="store_true", help="show findings of an untrained model, marked TEST MODEL"
    )


# --------------------------------------------------------------------------------------------- score


def _score(options: argparse.Namespace) -> int:
    from ich_node.decode import DecoderPool
    from ich_node.decoding_rules import decline_by, decode_limits, eligibility_rules
    from ich_node.model.site_thresholds import signed_thresholds
    from ich_node.pipeline import open_model
    from ich_node.scoring import score_paths

    missing = [path for path in options.paths if not path.exists()]
    if missing:
        sys.stderr.write("".join(f"ich-node score: {path}: no such file or folder\n" for path in missing))
        return 2
    config = config_or_defaults(options)
    console = Console(stderr=True)
    with DecoderPool(decode_limits(config), decline_by(config), config.decode.processes) as decoder:
        model = open_model(
            options.model or config.model.directory,
            options.engine or config.model.engine,
            threads=config.model.threads,
            show_untrained=options.test_model or config.model.show_findings_of_untrained_model,
            public_key=config.model.public_key_file,
            site_thresholds=signed_thresholds(config.state_directory),
        )
        with _progress(console) as bar:
            task = bar.add_task("scoring", total=None)
            scores = score_paths(
                options.paths,
                model,
                decoder,
                lambda done, total: bar.update(task, completed=done, total=total),
                eligibility_rules(config),
            )
        if options.output:
            _audit_export(options, config, _write_results(scores, model, decoder, options.output))
    _print_scores(scores, model, as_list=options.json)
    for unread in scores.unread:
        sys.stderr.write(f"{unread.path}: {unread.why}\n")
    return 1 if scores.unread else 0


def config_or_defaults(options: argparse.Namespace) -> Config:
    """Scoring needs no configuration, as long as nobody names one."""
    found = find_config(options.config)
    return Config() if found in DEFAULT_PATHS and not found.exists() else load_config(found)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("files"))
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _write_results(scores: Scores, model: Any, decoder: Any, directory: Path) -> list[Path]:
    """Write of each series the report in its richest encoding, and the objects for viewers."""
    from ich_node.records import REPORT_KIND
    from ich_node.scoring import build_results

    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for number, series in enumerate(scores.series, start=1):
        report, *others = build_results(series, model, decoder)
        for one in (report, *(other for other in others if other.kind != REPORT_KIND)):
            name = one.encoding if one is report else one.kind.lower().replace("_", "-")
            path = directory / f"{number:03d}-{name}.dcm"
            path.write_bytes(one.part10)
            sys.stderr.write(f"{path}\n")
            written.append(path)
    return written


def _audit_export(options: argparse.Namespace, config: Config, written: list[Path]) -> None:
    """Record that results were written, where this is a node: one of which there is a state folder."""
    from ich_node.audit import open_trail
    from ich_node.audit.subject import read_object

    if not find_config(options.config).is_file() or not config.state_directory.is_dir():
        return
    studies: dict[str, list[str]] = {}
    for one in filter(None, map(read_object, written)):
        uids = studies.setdefault(one.subject.patient_id, [])
        if one.subject.study_instance_uid not in uids:
            uids.append(one.subject.study_instance_uid)
    trail = open_trail(config, "score")
    for patient_id, uids in studies.items():
        trail.files_exported(options.output, {patient_id: uids})
    trail.close()


def _print_scores(scores: Scores, model: Any, *, as_list: bool) -> None:
    from ich_node.scoring import as_json

    if as_list:
        sys.stdout.write(json.dumps([as_json(one, model) for one in scores.series], indent=1) + "\n")
        return
    for series in scores.series:
        sys.stdout.write(printable(_in_words(series)) + "\n")


def _in_words(series: ScoredSeries) -> str:
    assert series.analysis is not None, "score_paths analyses every series"
    finding = series.analysis.finding
    if finding.reason is not None:
        detail = f" ({finding.reason_detail})" if finding.reason_detail else ""
        return f"{series.series_instance_uid}: no result: {finding.reason.text}{detail}"
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in finding.probabilities.items())
    mark = "TEST MODEL " if finding.test_model else ""
    whole = "" if finding.completeness.complete else ", INCOMPLETE"
    return f"{series.series_instance_uid}: {mark}{finding.triage}{whole}: {numbers} ({series.seconds:.1f} s)"


# ------------------------------------------------------------------------------------- phantom, PACS


def _phantom(options: argparse.Namespace) -> int:
    from ich_node.phantom import PhantomSettings, write_series

    lesion = None if options.lesion == "none" else options.lesion
    paths = write_series(options.directory, PhantomSettings(lesion=lesion, slices=options.slices, seed=options.seed))
    sys.stdout.write(f"{len(paths)} slices written to {options.directory}\n")
    return 0


def _pacs(options: argparse.Namespace) -> int:
    from ich_node.pacs import SmallPacs
    from ich_node.service import stop_on_signals

    def show(path: Path, dataset: Any) -> None:
        sys.stdout.write(printable(f"stored {dataset.get('Modality', '?')} {path}") + "\n")
        sys.stdout.flush()

    with stop_on_signals() as stop:
        try:
            pacs = SmallPacs(options.directory, ae_title=options.ae_title, port=options.port, on_stored=show)
            pacs.start()
        except OSError as error:
            sys.stderr.write(f"ich-node: cannot listen on port {options.port}: {error.strerror}\n")
            return 1
        sys.stdout.write(f"{options.ae_title} listens on port {options.port}, stores in {options.directory}\n")
        sys.stdout.flush()
        stop.wait()
        pacs.stop()
    return 0


def _demo(options: argparse.Namespace) -> int:
    from ich_node.demo import DemoSettings, run_demo

    settings = DemoSettings(options.folder, options.model, options.data, options.lesion, options.test_model)
    return run_demo(settings, Console(highlight=False))
