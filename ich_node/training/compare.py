"""Several backbones on the same folds and budget: the comparison that the project began with, done again."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Final

from sklearn.metrics import average_precision_score, roc_auc_score

from ich_node.training.evaluate.calibration import uncalibrated
from ich_node.training.evaluate.log_loss import loss_of_priors, weighted_log_loss
from ich_node.training.fit import FitSettings, fit
from ich_node.training.fit.log import read_log
from ich_node.training.fit.loop import LOG
from ich_node.training.fit.networks import load_network
from ich_node.training.predictions import read_predictions
from ich_node.training.prepared import PreparedSet
from ich_node.training.run_folder import HELD_OUT

BACKBONES: Final = ("inception_v3", "inception_v4", "resnet50", "efficientnet_b0", "densenet121", "inception_resnet_v2")
TABLE: Final = "comparison.csv"
FIGURE: Final = "comparison.png"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one backbone reached on the slices held out, over all folds together."""

    backbone: str
    log_loss: float
    """Weighted as the RSNA challenge does; less is better."""
    log_loss_of_priors: float
    """Of answering the prevalence of each class on every slice."""
    auc_any: float
    ap_any: float
    accuracy_any: float
    """At a probability of 0.5."""
    accuracy_of_always_no: float
    """What accuracy is worth: that of answering "no hemorrhage" on every slice."""
    parameters_millions: float
    training_slices_per_s: float
    slices: int


def compare(
    backbones: Sequence[str],
    settings: FitSettings,
    folds: Sequence[int],
    data: Sequence[PreparedSet],
    directory: Path,
    *,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> list[Comparison]:
    """Train every backbone on the same folds with the same settings; leaves a table and a figure.

    Finished runs in the folder are not done again, so an interrupted comparison goes on.

    Raises:
        TrainingError: see ``fit``.
    """
    rows = []
    for backbone in backbones:
        for fold in folds:
            say(f"{backbone}, fold {fold}")
            run = directory / backbone / f"fold-{fold}"
            fit(settings.model_copy(update={"backbone": backbone, "fold": fold}), data, run, device)
        rows.append(_summarise(backbone, [directory / backbone / f"fold-{fold}" for fold in folds]))
        _write_table(directory / TABLE, rows)
    _draw(directory / FIGURE, rows)
    return rows


def as_markdown(rows: Sequence[Comparison]) -> str:
    """The comparison as a Markdown table, the best log loss first."""
    head = [
        '| backbone | log loss | AUC any | AP any | accuracy any | always "no" | parameters | training slices/s |',
        "|---|---|---|---|---|---|---|---|",
    ]
    lines = [
        f"| {row.backbone} | {row.log_loss:.4f} | {row.auc_any:.3f} | {row.ap_any:.3f} | {row.accuracy_any:.3f} "
        f"| {row.accuracy_of_always_no:.3f} | {row.parameters_millions:.1f} M | {row.training_slices_per_s:.1f} |"
        for row in sorted(rows, key=lambda one: one.log_loss)
    ]
    return "\n".join(head + lines) + "\n"


def _summarise(backbone: str, runs: Sequence[Path]) -> Comparison:
    scored = read_predictions(run / HELD_OUT for run in runs)
    truth = scored.labels[:, 0]
    probabilities = uncalibrated(scored.logits)
    probability = probabilities[:, 0]
    network = load_network(runs[0])
    rates = [row["slices_per_s"] for run in runs for row in read_log(run / LOG) if row["slices_per_s"]]
    return Comparison(
        backbone=backbone,
        log_loss=weighted_log_loss(scored.labels, probabilities),
        log_loss_of_priors=loss_of_priors(scored.labels.mean(axis=0)),
        auc_any=float(roc_auc_score(truth, probability)),
        ap_any=float(average_precision_score(truth, probability)),
        accuracy_any=float(((probability >= 0.5) == truth).mean()),
        accuracy_of_always_no=float((truth == 0).mean()),
        parameters_millions=sum(one.numel() for one in network.parameters()) / 1e6,
        training_slices_per_s=median(rate for rate in rates if rate is not None),
        slices=len(truth),
    )


def _write_table(path: Path, rows: Sequence[Comparison]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([one.name for one in fields(Comparison)])
        writer.writerows(astuple(row) for row in rows)


def _draw(path: Path, rows: Sequence[Comparison]) -> None:
    from matplotlib.figure import Figure

    ranked = sorted(rows, key=lambda one: -one.log_loss)
    names = [row.backbone for row in ranked]
    figure = Figure(figsize=(11, 1.2 + 0.45 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(names, [row.log_loss for row in ranked], color="#3b6ea5")
    left.axvline(ranked[0].log_loss_of_priors, color="#b03a2e", linestyle="--", label="class prevalences alone")
    left.set_xlabel("weighted log loss (less is better)")
    left.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=8, frameon=False)
    right.barh(names, [row.auc_any for row in ranked], color="#3b6ea5")
    right.set_xlim(0.5, 1)
    right.set_xlabel("AUC, any hemorrhage, by slice")
    for axes, values in ((left, [row.log_loss for row in ranked]), (right, [row.auc_any for row in ranked])):
        for place, value in enumerate(values):
            axes.annotate(f"{value:.3f}", (value, place), (-4, 0), textcoords="offset points", ha="right", va="center",
                          color="white", fontsize=9)  # fmt: skip
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
