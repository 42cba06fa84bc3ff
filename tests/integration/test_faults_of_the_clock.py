"""A clock that is set by hours while a series arrives: the real commands, with a clock of their own."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from ich_node.pacs import SmallPacs
from ich_node.phantom import PhantomSettings, write_series
from tests.integration.receiving import association, encoded, store_bytes
from tests.running import NodeProcesses, settings, wait_for
from tests.shims import compile_shim

HEAD = PhantomSettings(slices=12, rows=64, slice_spacing_mm=11.0)
QUIET_S, LONGEST_S = 3.0, 40.0

pytestmark = pytest.mark.slow


class Clock:
    """The clock of the node's processes; the time since the boot is left as it is."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = folder / "clock"
        self._file.write_bytes(struct.pack("d", 0.0))
        monkeypatch.setenv("LD_PRELOAD", str(compile_shim("clock_step", folder)))
        monkeypatch.setenv("FAULT_CLOCK", str(self._file))

    def step(self, hours: float) -> None:
        """Set it, against the true time."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("d", hours * 3600.0))


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    return Clock(tmp_path, monkeypatch)


@pytest.mark.parametrize("offsets", [(2.0, 0.0), (-2.0, 0.0), (720.0,)], ids=["forth", "back", "month"])
def test_a_series_that_arrives_while_the_clock_is_set_is_concluded_once_and_whole(
    tmp_path: Path, tiny_bundle: Path, clock: Clock, offsets: tuple[float, ...]
) -> None:
    files = [dcmread(path) for path in write_series(tmp_path / "head", replace(HEAD))]
    uid = files[0].StudyInstanceUID
    with SmallPacs(tmp_path / "pacs") as pacs:
        values = settings(
            tmp_path / "state", tiny_bundle, destinations=[("pacs", pacs.port)],
            series={"quiet_s": QUIET_S, "max_wait_s": LONGEST_S},
        )  # fmt: skip
        with NodeProcesses(tmp_path, values) as node:
            with association(node.port) as to:
                for part, offset in enumerate([*offsets, None]):
                    for one in files[part * 4 : part * 4 + 4] if offset is not None else files[part * 4 :]:
                        assert store_bytes(to, encoded(one), instance_uid=one.SOPInstanceUID) == 0
                    time.sleep(1.0)
                    if offset is not None:
                        clock.step(offset)
                        time.sleep(2.0)
                        assert [one.state for one in node.status(uid).studies[0].series] == ["RECEIVING"]
            study = node.wait_settled(uid, LONGEST_S * 2)
            assert (study.revision, [one.state for one in study.series]) == (1, ["CONCLUDED"])
            assert study.series[0].complete is True
            assert {one.state for one in study.deliveries} == {"DELIVERED"}
            text = node.log("work").read_text()
            assert "the clock was set; what waits was moved with it" in text
            assert "lease lost" not in text
            assert len(list((tmp_path / "state/spool").glob("*/*.dcm"))) == 12  # not one past its days


def test_a_clock_that_is_set_back_holds_up_neither_series_nor_deliveries(
    tmp_path: Path, tiny_bundle: Path, clock: Clock
) -> None:
    files = [dcmread(path) for path in write_series(tmp_path / "head", HEAD)]
    uid = files[0].StudyInstanceUID
    pacs = SmallPacs(tmp_path / "pacs")
    pacs.start()
    port = pacs.port
    pacs.stop()
    values = settings(tmp_path / "state", tiny_bundle, destinations=[("pacs", port)])
    with NodeProcesses(tmp_path, values) as node:
        with association(node.port) as to:
            for one in files:
                assert store_bytes(to, encoded(one), instance_uid=one.SOPInstanceUID) == 0
        wait_for(lambda: [one for one in node.status(uid).studies[0].deliveries if one.attempts], "an attempt")
        clock.step(-6.0)
        time.sleep(1.0)
        with SmallPacs(tmp_path / "pacs", port=port):
            study = node.wait_settled(uid, 60.0)
        assert {one.state for one in study.deliveries} == {"DELIVERED"}
