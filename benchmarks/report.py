"""How long a report takes to build, in every encoding, for studies of several sizes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom import dcmread

from benchmarks.tables import median_and_range, print_table
from ich_node.decode import DecodeLimits, read_facts
from ich_node.phantom import PhantomSettings, write_series
from ich_node.pipeline import report, study_context
from ich_node.records import (
    HEMORRHAGE_CLASSES,
    ClassThresholds,
    Completeness,
    ModelIdentity,
    PlaneScore,
    PlaneScores,
    ReportIdentity,
    ResultObject,
    Step,
    Triage,
    TriageFinding,
)
from ich_node.triage import triage_series

SIZES = (30, 60, 200)
RUNS = 5


def measure() -> None:
    """Measure and print the table."""
    rows = []
    for slices in SIZES:
        with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name:
            files = write_series(Path(name), PhantomSettings(slices=slices, slice_spacing_mm=150 / slices))
            triage_ms, report_ms, objects = _measure(files)
        sizes = ", ".join(f"{one.encoding} {len(one.part10) / 1e3:.0f} kB" for one in objects)
        rows.append((slices, median_and_range(triage_ms), median_and_range(report_ms, 0), sizes))
    title = f"Triage, and report from the headers on disk, a positive study, {RUNS} runs"
    print_table(title, ("slices", "triage ms", "report ms", "objects"), rows)


def maker(files: Sequence[Path]) -> Callable[[], tuple[ResultObject, ...]]:
    """Give what makes the report of a positive study, in every encoding, from the headers on disk."""
    planes, study_instance_uid = _planes(files)
    identity = ReportIdentity("2.25.1", study_instance_uid, 1)
    model = ModelIdentity("benchmark", "1", "0" * 64, trained=True, backbone="inception_resnet_v2")
    steps = [Step(name, datetime.now(UTC)) for name in ("first slice received", "last slice received", "analysed")]
    facts = [one for path in files for one in read_facts(path, DecodeLimits())]
    finding = _triage(planes)

    def make() -> tuple[ResultObject, ...]:
        study = study_context(study_instance_uid, facts[0].sop_instance_uid, facts, files)
        return report(identity, study, finding, model, steps)

    return make


def _measure(files: Sequence[Path]) -> tuple[list[float], list[float], tuple[ResultObject, ...]]:
    """Return milliseconds of triage and of the report in each run, and the report's objects."""
    make, (planes, _) = maker(files), _planes(files)
    triage_ms, report_ms = [], []
    for _run in range(RUNS):
        began = time.perf_counter()
        finding = _triage(planes)
        triaged = time.perf_counter()
        objects = make()
        triage_ms.append(1000 * (triaged - began))
        report_ms.append(1000 * (time.perf_counter() - triaged))
    if finding.triage is not Triage.POSITIVE:
        raise RuntimeError("the benchmark's study is to be positive")
    return triage_ms, report_ms, objects


def _triage(planes: PlaneScores) -> TriageFinding:
    thresholds = dict.fromkeys(HEMORRHAGE_CLASSES, ClassThresholds(0.3, 0.6))
    return triage_series(planes, thresholds, dict.fromkeys(HEMORRHAGE_CLASSES, 1.0), Completeness())


def _planes(files: Sequence[Path]) -> tuple[PlaneScores, str]:
    """Make up scores: high in the middle of the series."""
    planes = []
    for number, path in enumerate(files):
        header = dcmread(path, stop_before_pixels=True)
        logit = 3.0 if abs(number - len(files) / 2) < len(files) / 5 else -3.0
        position_mm = float(header.ImagePositionPatient[2])
        planes.append(PlaneScore(str(header.SOPInstanceUID), None, position_mm, (logit,) * 6, np.zeros(4, np.float16)))
    return tuple(planes), str(header.StudyInstanceUID)
