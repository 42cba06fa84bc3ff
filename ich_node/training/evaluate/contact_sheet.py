"""The worst cases as one picture, for a person who wants to see why."""

import io
from collections.abc import Callable, Sequence
from math import ceil
from typing import Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from ich_node.training.evaluate.evaluation import WorstCase
from ich_node.training.prepared import SliceRow

Picture = Callable[[SliceRow], NDArray[np.uint8]]
"""A slice in the brain window: (rows, columns) grey."""

_COLUMNS: Final = 6
_INCHES: Final = 1.75
_LONGEST_NAME: Final = 24


def draw_contact_sheet(cases: Sequence[WorstCase], rows: Sequence[SliceRow], picture: Picture) -> bytes:
    """Draw cases side by side with their probability and what they show, as PNG.

    Args:
        cases: At least one.
        rows: That the cases are among.
        picture: Gives the image of a row.
    """
    by_name = {(row.source, row.image_id): row for row in rows}
    height = ceil(len(cases) / _COLUMNS)
    canvas = Canvas(figsize=(_COLUMNS * _INCHES, height * (_INCHES + 0.45)), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.subplots(height, _COLUMNS, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for case, ax in zip(cases, axes, strict=False):
        ax.imshow(picture(by_name[case.source, case.image_id]), cmap="gray", vmin=0, vmax=255)
        ax.set_title(_caption(case), fontsize=6.5, loc="left", pad=3)
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _caption(case: WorstCase) -> str:
    shown = ", ".join(name for name in case.labels if name != "any") or ("any" if case.labels else "no hemorrhage")
    name = case.image_id if len(case.image_id) <= _LONGEST_NAME else f"…{case.image_id[-_LONGEST_NAME:]}"
    return f"{name}\np = {case.probability:.3f}\n{shown}"
