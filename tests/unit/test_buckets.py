import pytest

from ich_node.model.buckets import split_into_runs
from ich_node.model.gpu import BUCKETS


@pytest.mark.parametrize(
    ("slices", "runs"),
    [
        (0, []),
        (1, [(1, 1)]),
        (3, [(4, 3)]),
        (9, [(16, 9)]),
        (17, [(16, 16), (1, 1)]),
        (20, [(16, 16), (4, 4)]),
        (36, [(36, 36)]),
        (30, [(36, 30)]),
        (76, [(36, 36), (36, 36), (4, 4)]),
    ],
)
def test_slices_go_into_the_batches_that_cost_least(slices: int, runs: list[tuple[int, int]]) -> None:
    assert split_into_runs(slices, BUCKETS) == runs


@pytest.mark.parametrize("buckets", [(1,), (4,), (4, 16), BUCKETS])
def test_every_slice_is_in_one_batch_and_only_the_last_is_filled_up(buckets: tuple[int, ...]) -> None:
    for slices in range(150):
        runs = split_into_runs(slices, buckets)
        assert sum(run.used for run in runs) == slices
        assert all(run.bucket in buckets for run in runs)
        assert all(run.used == run.bucket for run in runs[:-1])
