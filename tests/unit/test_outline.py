"""The line round the hottest region."""

import numpy as np

from ich_node.report.outline import hottest_region, outline


def blobs() -> np.ndarray:
    down, across = np.mgrid[:60, :80]
    high = 10.0 - np.hypot(down - 20, across - 50)
    low = 8.0 - np.hypot(down - 45, across - 15)
    return np.maximum(np.maximum(high, low), 0).astype(np.float32)


def test_the_hottest_region_is_the_one_of_the_highest_share_alone() -> None:
    region = hottest_region(blobs())
    rows, columns = np.nonzero(region)
    assert (rows.mean(), columns.mean()) == (20, 50)
    assert region.sum() > 50
    assert not region[45, 15]


def test_a_map_without_a_positive_share_has_no_region_and_no_line() -> None:
    region = hottest_region(np.zeros((8, 9), np.float32))
    assert not region.any()
    assert outline(region) == []


def test_the_line_closes_and_runs_round_the_region() -> None:
    region = hottest_region(blobs())
    points = np.array(outline(region))
    assert (points[0] == points[-1]).all()
    assert 8 < len(points) <= 121
    far = np.hypot(points[:, 0] - 50.5, points[:, 1] - 20.5)  # the centre of a pixel lies half a pixel in
    assert 4 < far.min() <= far.max() < 7


def test_the_line_of_one_pixel_at_a_corner_of_the_image_is_a_square_round_it() -> None:
    region = np.zeros((4, 5), bool)
    region[3, 4] = True
    points = outline(region)
    assert set(points) == {(4.5, 3.0), (5.0, 3.5), (4.5, 4.0), (4.0, 3.5)}


def test_the_line_stays_outside_of_what_only_touches_at_a_corner() -> None:
    region = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]], bool)
    points = outline(region)
    assert len(set(points)) == 16  # all edges: the hole is open to the outside between two corners
