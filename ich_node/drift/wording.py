"""What a look found, in plain words. Names of stations and kernels come from DICOM, and may hold anything."""

from __future__ import annotations

from typing import Final

from ich_node.drift.quantities import BY_NAME, POSITIVES, PROBABILITY, REASON, label_of
from ich_node.drift.results import Comparison, GroupLook, Spread

_LONGEST_NAME: Final = 40


def in_words(group: GroupLook, one: Comparison) -> str:
    """Say what changed, where: "brain 3.1 HU higher than in the reference at CT_ER, kernel H31s"."""
    return f"{change_in_words(one)} at {group_name(group.station_name, group.convolution_kernel)}"


def change_in_words(one: Comparison) -> str:
    """Say what changed."""
    before, after = one.reference, one.recent
    if before is None or after is None:
        return f"{label_of(one.name)} not compared with the reference"
    if one.name == POSITIVES or one.name.startswith(REASON):
        return f"{label_of(one.name)}: {after.middle:.0f} of 100, {before.middle:.0f} in the reference,"
    if one.name == PROBABILITY:
        medians = f"median {100 * after.middle:.1f} %, before {100 * before.middle:.1f} %"
        return f"scores otherwise distributed than in the reference ({medians})"
    return _shift(one.name, before, after)


def _shift(name: str, before: Spread, after: Spread) -> str:
    quantity, change = BY_NAME[name], after.middle - before.middle
    unit, digits = quantity.unit, quantity.digits
    if abs(change) < quantity.matters * (abs(before.middle) if quantity.relative else 1.0):
        now = f"{after.low:.{digits}f} to {after.high:.{digits}f} {unit}"
        then = f"{before.low:.{digits}f} to {before.high:.{digits}f}"
        return f"{quantity.label} otherwise scattered than in the reference (middle half {now}, before {then})"
    share = f" ({100 * change / before.middle:+.0f} %)" if quantity.relative and before.middle else ""
    direction = "higher" if change > 0 else "lower"
    return f"{quantity.label} {abs(change):.{digits}f} {unit}{share} {direction} than in the reference"


def group_name(station_name: str, convolution_kernel: str) -> str:
    """Name a group on one short line."""
    kernel = f"kernel {_short(convolution_kernel)}" if convolution_kernel else "no kernel named"
    return f"{_short(station_name) or 'a station without a name'}, {kernel}"


def _short(text: str) -> str:
    plain = "".join(one if one.isprintable() else "?" for one in text.strip())
    return plain if len(plain) <= _LONGEST_NAME else f"{plain[: _LONGEST_NAME - 1]}…"
