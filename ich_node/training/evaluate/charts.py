"""Curves, reliability and confusion as PNG pictures."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from sklearn.metrics import precision_recall_curve, roc_curve

from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.evaluate.cases import Cases
from ich_node.training.evaluate.evaluation import ClassCalibration, Confusion

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE: Final = "#1f5f8b"
_GREY: Final = "#9aa5ad"
_RED: Final = "#b3402e"
_DPI: Final = 110
_FONT_SIZE: Final = 9
_ANSWERS: Final = ("negative", "indeterminate", "positive")


def draw_roc_curves(cases: Cases) -> bytes:
    """Draw the ROC curve of every class that has both kinds of cases."""
    canvas, axes = _grid("1 - specificity", "sensitivity")
    for number, (name, ax) in enumerate(zip(HEMORRHAGE_CLASSES, axes, strict=True)):
        ax.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle=":")
        if _has_both(cases, number):
            false_alarms, found, _ = roc_curve(cases.labels[:, number] > 0, cases.probabilities[:, number])
            ax.plot(false_alarms, found, color=_BLUE)
        _title(ax, name, cases, number)
    return _png(canvas)


def draw_precision_recall_curves(cases: Cases) -> bytes:
    """Draw the precision-recall curve of every class that has both kinds of cases."""
    canvas, axes = _grid("sensitivity (recall)", "PPV (precision)")
    for number, (name, ax) in enumerate(zip(HEMORRHAGE_CLASSES, axes, strict=True)):
        ax.axhline(float(cases.labels[:, number].mean()), color=_GREY, linewidth=0.8, linestyle=":")
        if _has_both(cases, number):
            precise, found, _ = precision_recall_curve(cases.labels[:, number] > 0, cases.probabilities[:, number])
            # the last point (recall 0, precision 1) is none of the cases': it only closes scikit-learn's arrays
            ax.step(found[:-1], precise[:-1], where="post", color=_BLUE)
        _title(ax, name, cases, number)
    return _png(canvas)


def draw_reliability(calibration: Mapping[str, ClassCalibration]) -> bytes:
    """Draw observed shares over probabilities, before and after temperature scaling, on slices."""
    canvas, axes = _grid("mean probability of the bin", "observed share")
    for (name, one), ax in zip(calibration.items(), axes, strict=True):
        ax.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle=":")
        for label, figures, color in (("before", one.before, _RED), ("after", one.after, _BLUE)):
            points = [(point.mean_probability, point.observed) for point in figures.reliability]
            x, y = zip(*points, strict=True)
            ax.plot(x, y, color=color, marker="o", markersize=3, linewidth=1, label=label)
        ax.set_title(name, fontsize=_FONT_SIZE)
    axes[0].legend(frameon=False, fontsize=8)
    return _png(canvas)


def draw_confusion(confusion: Mapping[str, Confusion]) -> bytes:
    """Draw truth against answer for every class."""
    canvas, axes = _grid("", "", share=False)
    for (name, one), ax in zip(confusion.items(), axes, strict=True):
        counts = np.array([one.negative, one.positive])
        ax.imshow(
            counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1.6, aspect="auto"
        )
        for row in range(2):
            for column in range(3):
                ax.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=_FONT_SIZE)
        ax.set_xticks(range(3), _ANSWERS, fontsize=7)
        ax.set_yticks(range(2), ("without", "with"), fontsize=8)
        ax.set_title(f"{name}, per {one.level}", fontsize=_FONT_SIZE)
    return _png(canvas)


def _grid(x: str, y: str, *, share: bool = True) -> tuple[Canvas, Sequence["Axes"]]:
    """Lay out one small square for each class."""
    canvas = Canvas(figsize=(9.0, 6.0), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.subplots(2, 3).ravel()
    if share:
        for ax in axes:
            ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
            ax.tick_params(labelsize=7)
            ax.spines[["top", "right"]].set_visible(False)
        canvas.supxlabel(x, fontsize=9)
        canvas.supylabel(y, fontsize=9)
    return canvas, list(axes)


def _title(ax: "Axes", name: str, cases: Cases, number: int) -> None:
    positives = int((cases.labels[:, number] > 0).sum())
    ax.set_title(f"{name} ({positives} of {len(cases)})", fontsize=_FONT_SIZE)


def _has_both(cases: Cases, number: int) -> bool:
    return 0 < int((cases.labels[:, number] > 0).sum()) < len(cases)


def _png(canvas: Canvas) -> bytes:
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
