"""What a soak says of its samples: growth is seen, and a loss is never a success."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.soak_samples import RoleSample, Sample, Samples, print_report, slope_per_h
from benchmarks.tables import MISSED

HOUR = 3600.0


def test_growth_is_a_slope_in_an_hour() -> None:
    seconds = [60.0 * minute for minute in range(61)]
    assert slope_per_h(seconds, [100.0 + 3.0 * one / HOUR for one in seconds]) == pytest.approx(3.0)
    assert slope_per_h(seconds, [100.0] * 61) == pytest.approx(0.0, abs=1e-9)


def written(folder: Path, mib_per_h: float, wal_mib: float = 1.0, **end: object) -> Samples:
    for name, kind in (("samples.csv", Sample), ("roles.csv", RoleSample)):
        (folder / name).write_text(",".join(kind.__dataclass_fields__) + "\n")
    for minute in range(61):
        s = 60.0 * minute
        with (folder / "samples.csv").open("a") as file:
            file.write(f"{s},{wal_mib},1,1,0,0,100,10,100,10\n")
        with (folder / "roles.csv").open("a") as file:
            file.write(f"{s},receive,{100 + mib_per_h * s / HOUR},100,20,9,3\n")
    whole = {"studies": 10, "answered": 100, "rows": 100, "delivered": 10, "in_pacs": 10, "answers": {"0x0000": 100}}
    (folder / "end.json").write_text(json.dumps(whole | end))
    return Samples(folder)


def test_a_soak_in_which_all_arrived_ends_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_report(written(tmp_path, mib_per_h=0.5)) == 0
    said = capsys.readouterr().out
    assert "+0.50" in said
    assert "≤ 1" in said
    assert "all there" in said


@pytest.mark.parametrize(
    "end",
    [
        {"rows": 99},
        {"delivered": 9},
        {"in_pacs": 9},
        {"answers": {"0x0000": 100, "0xA700": 1}},
        {"studies": 0, "answered": 0, "rows": 0, "delivered": 0, "in_pacs": 0, "answers": {}},
    ],
    ids=["a row", "a report", "a report in the PACS", "a refusal", "all of it"],
)
def test_what_is_missing_ends_it_badly(tmp_path: Path, end: dict[str, object]) -> None:
    assert print_report(written(tmp_path, 0.0, **end)) == 1


@pytest.mark.parametrize(
    ("mib_per_h", "wal_mib"), [(1.5, 1.0), (0.5, 65.0)], ids=["memory that grows", "a log that grows"]
)
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "interrupted"])
def test_a_target_that_is_missed_ends_it_badly(tmp_path: Path, mib_per_h: float, wal_mib: float, ended: bool) -> None:
    samples = written(tmp_path, mib_per_h, wal_mib)
    samples.end = samples.end if ended else None
    assert print_report(samples) == 1


@pytest.mark.parametrize("key", ["descriptors", "threads"])
def test_descriptors_or_threads_that_become_more_end_it_badly(tmp_path: Path, key: str) -> None:
    samples = written(tmp_path, mib_per_h=0.5)
    for number, one in enumerate(samples.roles):
        one[key] += 2 * (number % 2)  # what comes and goes is no growth
    assert print_report(samples) == 0
    for number, one in enumerate(samples.roles):
        one[key] += number // 15
    assert print_report(samples) == 1


def test_growth_that_ends_misses_the_target_and_is_told_from_a_leak(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = written(tmp_path, mib_per_h=6.0)
    for one in samples.roles:
        one["rss_mib"] = min(one["rss_mib"], 103.0)
    assert print_report(samples) == 1
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "receive" in line]
    assert MISSED in row
    assert "0.00 " in row


def test_a_child_of_a_moment_is_no_growth_and_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = written(tmp_path, mib_per_h=0.5)
    samples.roles[55] |= {"rss_mib": 280.0, "processes": 4.0}
    assert print_report(samples) == 0
    said = capsys.readouterr().out
    assert "+0.50" in said
    assert "3 to 3 (3-4)" in said
    assert "280" in said


def test_growth_is_not_judged_before_half_an_hour(tmp_path: Path) -> None:
    samples = written(tmp_path, mib_per_h=50.0)
    samples.whole, samples.roles = samples.whole[:20], samples.roles[:20]
    assert print_report(samples) == 0
