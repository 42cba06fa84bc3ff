"""Batches of a few fixed sizes: how many slices are computed at once."""

from functools import cache
from typing import Final, NamedTuple

_FIXED_COST: Final = 4
"""A run takes what it takes for its slices, and as long as this many slices would take for itself: a GPU that is given
one slice is mostly idle. Not measured; it only decides between ways that all give the same answer."""


class Run(NamedTuple):
    """One run of the network."""

    bucket: int
    """Slices that are computed."""
    used: int
    """Slices among them that somebody wants; the rest fills up."""


def split_into_runs(slices: int, buckets: tuple[int, ...]) -> list[Run]:
    """Split slices into runs of the sizes that there are: first whole ones of the largest, then what costs least.

    Args:
        slices: 0 or more.
        buckets: Sizes, ascending.
    """
    whole, rest = divmod(slices, buckets[-1])
    return [Run(buckets[-1], buckets[-1])] * whole + list(_cheapest(rest, buckets))


@cache
def _cheapest(slices: int, buckets: tuple[int, ...]) -> tuple[Run, ...]:
    if not slices:
        return ()
    ways = [(Run(one, min(one, slices)), *_cheapest(max(0, slices - one), buckets)) for one in reversed(buckets)]
    return min(ways, key=_cost)


def _cost(runs: tuple[Run, ...]) -> int:
    return sum(run.bucket + _FIXED_COST for run in runs)
