"""Charts as SVG that is part of the page: no script, no picture to fetch, sharp in print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ich_node.validation.figures import Share
from ich_node.validation.matching import Case
from ich_node.validation.operating_points import OperatingRow

_SIDE: Final = 260
_LEFT, _TOP, _BOTTOM = 46, 12, 44
_BINS: Final = 25
_WIDE, _HALF = 430, 112
_BAR: Final = 92


def roc_chart(cases: Sequence[Case], rows: Sequence[OperatingRow]) -> Markup:
    """Draw the ROC curve of ``any``, and where the thresholds in use and proposed lie on it."""
    points = _curve(cases)
    line = " ".join(f"{_x(one):.1f},{_y(other):.1f}" for one, other in points)
    marks = Markup("").join(_mark(one) for one in _at_thresholds(rows))
    return Markup(
        '<svg class="chart" role="img" aria-label="ROC curve" viewBox="0 0 {w} {h}">{frame}'
        '<line class="chance" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}"/>'
        '<polyline class="curve" points="{line}"/>{marks}</svg>'
    ).format(
        w=_LEFT + _SIDE + 22, h=_TOP + _SIDE + _BOTTOM, frame=_roc_frame(), line=line, marks=marks,
        x0=_x(0), y0=_y(0), x1=_x(1), y1=_y(1),
    )  # fmt: skip


def score_chart(cases: Sequence[Case], low: float, high: float) -> Markup:
    """Draw how the probabilities of ``any`` lie: studies with hemorrhage upward, those without downward."""
    edges = np.linspace(0, 1, _BINS + 1)
    parts = [_scale()]
    for hemorrhage, direction, style in ((True, -1, "with"), (False, 1, "without")):
        scores = [one.result.probabilities["any"] for one in cases if one.hemorrhage is hemorrhage]
        counts = np.histogram(scores, edges)[0]
        parts.append(_bars(counts, direction, style))
    for name, at, side in (("low", low, "end"), ("high", high, "start")):
        parts.append(_limit(name, at, side))
    return Markup('<svg class="chart" role="img" aria-label="Probabilities" viewBox="0 0 {} {}">{}</svg>').format(
        _LEFT + _WIDE + 14, _TOP + 2 * _HALF + _BOTTOM, Markup("").join(parts)
    )


def interval_bar(one: Share) -> Markup:
    """Draw a share and its interval on a line from 0 to 100 %; nothing where there are too few studies."""
    if one.value is None or one.few:
        return Markup("")
    return Markup(
        '<svg class="bar" aria-hidden="true" viewBox="0 0 {} 14"><line class="axis" x1="3" y1="7" x2="{}" y2="7"/>'
        '<line class="reach" x1="{:.1f}" y1="7" x2="{:.1f}" y2="7"/><circle cx="{:.1f}" cy="7" r="3"/></svg>'
    ).format(_BAR + 6, _BAR + 3, 3 + _BAR * one.low, 3 + _BAR * one.high, 3 + _BAR * one.value)


def _curve(cases: Sequence[Case]) -> list[tuple[float, float]]:
    """Give (1 - specificity, sensitivity) at every threshold, from the highest on; equal scores go together."""
    scores = np.array([one.result.probabilities["any"] for one in cases], np.float64)
    truth = np.array([one.hemorrhage for one in cases], np.bool_)
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.diff(scores[order]) != 0, True)
    found = np.cumsum(truth[order])[ends] / max(1, int(truth.sum()))
    alarms = np.cumsum(~truth[order])[ends] / max(1, int((~truth).sum()))
    return [(0.0, 0.0), *zip(alarms.tolist(), found.tolist(), strict=True)]


def _at_thresholds(rows: Sequence[OperatingRow]) -> Iterable[tuple[str, float, float]]:
    for one in rows:
        kind, _, _ = one.name.partition(":")
        sensitivity, specificity = one.rates.sensitivity.value, one.rates.specificity.value
        if kind in ("in use", "proposed") and sensitivity is not None and specificity is not None:
            yield kind.replace(" ", "-"), 1 - specificity, sensitivity


def _mark(one: tuple[str, float, float]) -> Markup:
    kind, alarms, found = one
    if kind == "in-use":
        return Markup('<circle class="in-use" cx="{:.1f}" cy="{:.1f}" r="5"/>').format(_x(alarms), _y(found))
    return Markup('<rect class="proposed" x="{:.1f}" y="{:.1f}" width="8" height="8"/>').format(
        _x(alarms) - 4, _y(found) - 4
    )


def _roc_frame() -> Markup:
    lines = Markup("").join(_roc_line(share) for share in (0.0, 0.25, 0.5, 0.75, 1.0))
    across = Markup('<text x="{}" y="{}" text-anchor="middle">1 − specificity</text>').format(_x(0.5), _y(0) + 32)
    upward = Markup('<text transform="translate(11 {}) rotate(-90)" text-anchor="middle">sensitivity</text>')
    return lines + across + upward.format(_y(0.5))


def _roc_line(share: float) -> Markup:
    return Markup(
        '<line class="grid" x1="{x}" y1="{top}" x2="{x}" y2="{bottom}"/>'
        '<line class="grid" x1="{left}" y1="{y}" x2="{right}" y2="{y}"/>'
        '<text x="{x}" y="{below}" text-anchor="middle">{label}</text>'
        '<text x="{beside}" y="{middle}" text-anchor="end">{label}</text>'
    ).format(
        x=_x(share), y=_y(share), top=_y(1), bottom=_y(0), left=_x(0), right=_x(1), below=_y(0) + 14,
        beside=_LEFT - 6, middle=_y(share) + 4, label=f"{share:.0%}",
    )  # fmt: skip


def _x(share: float) -> float:
    return _LEFT + _SIDE * share


def _y(share: float) -> float:
    return _TOP + _SIDE * (1 - share)


def _scale() -> Markup:
    middle, below = _TOP + _HALF, _TOP + 2 * _HALF
    tick = Markup('<text x="{}" y="{}" text-anchor="middle">{:g}</text>')
    beside = Markup('<text transform="translate(14 {}) rotate(-90)" text-anchor="middle">{}</text>')
    parts = [
        Markup('<line class="axis" x1="{0}" y1="{1}" x2="{2}" y2="{1}"/>').format(_LEFT, middle, _LEFT + _WIDE),
        *(tick.format(_LEFT + _WIDE * share, below + 16, share) for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        beside.format(middle - _HALF / 2, "with"),
        beside.format(middle + _HALF / 2, "without"),
        Markup('<text x="{}" y="{}" text-anchor="middle">probability of any hemorrhage</text>').format(
            _LEFT + _WIDE / 2, below + 34
        ),
    ]
    return Markup("").join(parts)


def _bars(counts: NDArray[np.intp], direction: int, style: str) -> Markup:
    """Draw one group; each is drawn to its own highest bar, which says how many studies it is."""
    middle, wide, highest = _TOP + _HALF, _WIDE / _BINS, int(counts.max(initial=1)) or 1
    parts = []
    for number, count in enumerate(counts.tolist()):
        tall = (_HALF - 14) * count / highest
        if not count:
            continue
        top = middle - tall if direction < 0 else middle
        parts.append(
            Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                style, _LEFT + number * wide + 0.5, top, wide - 1, max(tall, 1.0)
            )
        )
        if count == highest:
            parts.append(
                Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(
                    _LEFT + (number + 0.5) * wide, top - 3 if direction < 0 else middle + tall + 11, count
                )
            )
    return Markup("").join(parts)


def _limit(name: str, at: float, side: str) -> Markup:
    x = _LEFT + _WIDE * at
    return Markup(
        '<line class="limit" x1="{0:.1f}" y1="{1}" x2="{0:.1f}" y2="{2}"/>'
        '<text class="limit" x="{3:.1f}" y="{4}" text-anchor="{5}">{6}</text>'
    ).format(x, _TOP, _TOP + 2 * _HALF, x + (4 if side == "start" else -4), _TOP + 8, side, name)
