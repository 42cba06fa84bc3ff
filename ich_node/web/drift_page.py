"""What the page of drift shows, and the command prints: each station and kernel, in words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ich_node.drift import Comparison, GroupLook, Look, group_name
from ich_node.drift.quantities import BY_NAME, PROBABILITY, label_of, unit_of
from ich_node.drift.wording import change_in_words
from ich_node.queries.drift import SetReference
from ich_node.records import DriftRules
from ich_node.web.drift_chart import Chart, charts_of


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity in a table: cells are a text, and a smaller one beneath."""

    name: str
    reference: tuple[str, str]
    recent: tuple[str, str]
    change: str
    p: str
    verdict: str
    found: bool


@dataclass(frozen=True, slots=True)
class Group:
    """One station and kernel."""

    key: str
    """Stands for both in a form: their texts may hold what no form carries unchanged."""
    name: str
    look: GroupLook
    rows: tuple[Row, ...]
    charts: tuple[Chart, ...]
    verdict: str
    found: bool
    compared: bool
    """Anything could be compared."""
    reference: SetReference | None
    """As a person set it."""


@dataclass(frozen=True, slots=True)
class DriftPage:
    """All that the page shows."""

    look: Look
    groups: tuple[Group, ...]
    """Those that drift first, then those that could be compared."""
    waiting: tuple[Group, ...]
    """Of which nothing can be said yet."""


def drift_page(look: Look, references: Sequence[SetReference], rules: DriftRules) -> DriftPage:
    """Put together what the page shows."""
    set_by = {(one.station_name, one.convolution_kernel): one for one in references}
    groups = [_group(one, set_by.get((one.station_name, one.convolution_kernel)), look, rules) for one in look.groups]
    compared = sorted((one for one in groups if one.compared), key=lambda one: not one.found)
    return DriftPage(look, tuple(compared), tuple(one for one in groups if not one.compared))


def key_of(group: GroupLook) -> str:
    """Name a group by a digest of its texts."""
    return hashlib.sha256(f"{group.station_name}\0{group.convolution_kernel}".encode()).hexdigest()[:32]


def _group(group: GroupLook, reference: SetReference | None, look: Look, rules: DriftRules) -> Group:
    renewed = reference is not None and reference.set_at > look.looked_at
    found = bool(group.found) and not renewed
    compared = any(one.p is not None for one in group.comparisons)
    return Group(
        key=key_of(group),
        name=group_name(group.station_name, group.convolution_kernel),
        look=group,
        rows=tuple(_row(one, rules) for one in group.comparisons),
        charts=charts_of(group) if compared else (),
        verdict=_verdict(group, rules, renewed=renewed, compared=compared),
        found=found,
        compared=compared,
        reference=reference,
    )


def _verdict(group: GroupLook, rules: DriftRules, *, renewed: bool, compared: bool) -> str:
    if renewed:
        return "new reference; the next look compares with it"
    if not compared:
        return too_few(group.reference_count, group.recent_count, rules)
    if group.found:
        return "; ".join(change_in_words(one).rstrip(",") for one in group.found)
    missing = [label_of(one.name) for one in group.comparisons if one.p is None]
    partly = f"; not compared yet: {', '.join(missing)}" if missing else ""
    return f"no drift found{partly}"


def too_few(reference_count: int, recent_count: int, rules: DriftRules) -> str:
    """Say what is missing for a comparison."""
    if reference_count < rules.minimum_series:
        return f"not enough series yet: {reference_count} of {rules.minimum_series} for a reference"
    return f"not enough recent series: {recent_count} of {rules.recent_series}"


def _row(one: Comparison, rules: DriftRules) -> Row:
    name = label_of(one.name)
    if one.p is None or one.reference is None or one.recent is None or one.change is None:
        return Row(name, ("–", ""), ("–", ""), "–", "–", too_few(one.reference_count, one.recent_count, rules), False)
    is_share = one.name not in BY_NAME
    ends = "95 % interval" if is_share else "middle half"
    texts = []
    for spread, count in ((one.reference, one.reference_count), (one.recent, one.recent_count)):
        low, middle, high = (_number(one.name, value) for value in (spread.low, spread.middle, spread.high))
        texts.append((f"{middle} {unit_of(one.name)}", f"{ends} {low} to {high}, {count} series"))
    verdict = "drift" if one.found else "differs, too little to matter" if one.sure else "no sure difference"
    return Row(name, texts[0], texts[1], _change(one), _chance(one.p), verdict, one.found)


def _number(name: str, value: float) -> str:
    if name == PROBABILITY:
        return f"{100 * value:.1f}"
    return f"{value:.{BY_NAME[name].digits}f}" if name in BY_NAME else f"{value:.1f}"


def _change(one: Comparison) -> str:
    assert one.change is not None, "it was compared"
    if one.name == PROBABILITY:
        return f"distance {one.change:.2f}"
    if one.name not in BY_NAME:
        return f"{one.change:+.1f}"
    quantity = BY_NAME[one.name]
    before = one.reference.middle if quantity.relative and one.reference else 0.0
    share = f" ({100 * one.change / before:+.0f} %)" if before else ""
    return f"{one.change:+.{quantity.digits}f}{share}"


def _chance(p: float) -> str:
    return "under 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"
