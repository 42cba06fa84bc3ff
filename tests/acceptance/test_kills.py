"""kill -9 anywhere loses nothing: concluded once, one report, and the same probabilities as ``ich-node score``."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select

from ich_node.database import PlaneRow, SeriesRow, StudyRow, open_database
from ich_node.decode import DecoderPool
from ich_node.pacs import SmallPacs, send_study
from ich_node.phantom import PhantomSettings, write_series
from ich_node.pipeline import Model
from ich_node.queries import StudyStatus
from ich_node.scoring import as_json, score_paths
from tests.running import NodeProcesses, leaks_a_socket, wait_for

# pynetdicom 3.0.4 drops the socket of a connection that was cut without closing it
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

Arrange = Callable[[Sequence[Path]], list[list[Path]]]


def one_association(files: Sequence[Path]) -> list[list[Path]]:
    return [list(files)]


def reversed_order(files: Sequence[Path]) -> list[list[Path]]:
    return [list(reversed(files))]


def one_association_per_slice(files: Sequence[Path]) -> list[list[Path]]:
    return [[path] for path in random.Random(1).sample(list(files), len(files))]


def several_associations(files: Sequence[Path]) -> list[list[Path]]:
    shuffled = random.Random(2).sample(list(files), len(files))
    return [shuffled[start::4] for start in range(4)]


@pytest.fixture
def phantom(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, list[Path]]:
    """Thirty slices with a lesion, of a study of its own."""
    uid = f"2.25.{abs(hash((request.node.name, str(tmp_path))))}"
    head = PhantomSettings(lesion="intraparenchymal", slices=30, rows=96, study_instance_uid=uid)
    return uid, write_series(tmp_path / "phantom", head)


@pytest.fixture
def expected(phantom: tuple[str, list[Path]], tiny_model: Model, decoder: DecoderPool) -> dict[str, float]:
    """What ``score`` says of the folder: `any` by SOP Instance UID. It differs between slices, or it proves nothing."""
    scores = score_paths([phantom[1][0].parent], tiny_model, decoder, lambda _done, _all: None)
    (entry,) = [as_json(one, tiny_model) for one in scores.series]
    by_slice = {one["sop_instance_uid"]: one["probabilities"]["any"] for one in entry["slices"]}
    assert len(by_slice) == 30
    assert max(by_slice.values()) - min(by_slice.values()) >= 0.1
    return by_slice | {"study": entry["probabilities"]["any"]}


@pytest.mark.parametrize("arrange", [reversed_order, one_association_per_slice, several_associations])
def test_slices_in_any_order_give_the_probabilities_of_score(
    node: NodeProcesses, pacs: SmallPacs, phantom: tuple[str, list[Path]], expected: dict[str, float], arrange: Arrange
) -> None:
    uid, files = phantom
    for batch in arrange(files):
        send(batch, node.port)
    check(node.wait_settled(uid), expected, pacs)


@pytest.mark.parametrize("arrange", [one_association, pytest.param(one_association_per_slice, marks=pytest.mark.slow)])
def test_a_worker_that_is_killed_in_the_middle_of_a_study_loses_nothing(
    node: NodeProcesses, pacs: SmallPacs, phantom: tuple[str, list[Path]], expected: dict[str, float], arrange: Arrange
) -> None:
    uid, files = phantom
    first = random.Random(3).sample(files, 12)  # leaves gaps, so that nothing is concluded before the rest has come
    send(first, node.port)
    wait_for(lambda: planes(node, uid), "the worker is in the middle of the study")
    node.kill("work")
    for batch in arrange([path for path in files if path not in first]):
        send(batch, node.port)
    assert planes(node, uid) < 30
    node.restart("work")

    check(node.wait_settled(uid), expected, pacs)


@leaks_a_socket
@pytest.mark.parametrize("arrange", [one_association, pytest.param(several_associations, marks=pytest.mark.slow)])
def test_a_receiver_that_is_killed_in_the_middle_of_an_association_loses_nothing(
    node: NodeProcesses, pacs: SmallPacs, phantom: tuple[str, list[Path]], expected: dict[str, float], arrange: Arrange
) -> None:
    uid, files = phantom
    shuffled = random.Random(4).sample(files, 30)
    with ThreadPoolExecutor(1) as thread:
        sending = thread.submit(send, shuffled * 20, node.port)  # again and again, so that the end is not reached
        wait_for(lambda: slices(node, uid) >= 5, "the receiver is in the middle of the study")
        node.kill("receive")
        with pytest.raises((ConnectionError, RuntimeError)):
            sending.result()
    node.restart("receive")
    for batch in arrange(shuffled):  # what the sender does when it got no answer
        send(batch, node.port)

    check(node.wait_settled(uid), expected, pacs)


@leaks_a_socket
def test_a_deliverer_that_is_killed_while_it_sends_delivers_one_object(
    node: NodeProcesses, pacs: SmallPacs, phantom: tuple[str, list[Path]], expected: dict[str, float]
) -> None:
    uid, files = phantom
    killed = []

    def kill_at_the_first(_dataset: object) -> int:
        if not killed:  # the PACS stores the report, and the deliverer is dead before the answer reaches it
            killed.append(True)
            node.kill("deliver")
        return 0x0000

    pacs.store_status = kill_at_the_first
    try:
        send(files, node.port)
        wait_for(lambda: killed, "the deliverer sends")
        node.restart("deliver")
        study = node.wait_settled(uid)
    finally:
        pacs.store_status = 0x0000

    assert [one.state for one in study.deliveries] == ["DELIVERED"] * len(study.deliveries)
    (delivery,) = [one for one in study.deliveries if one.destination == "pacs"]
    assert delivery.attempts == 2
    assert pacs.received[delivery.sop_instance_uid or ""] == 2, "sent twice"
    assert len(list((pacs.directory / uid).iterdir())) == 1, "and it is one object"
    assert study.revision == 1


def send(files: Sequence[Path], port: int) -> None:
    assert send_study(files, "127.0.0.1", port, "ICH_NODE") == len(files)


def check(study: StudyStatus, expected: dict[str, float], pacs: SmallPacs) -> None:
    """Concluded once, complete, one report in the PACS, every slice with the probability that ``score`` gives."""
    (series,) = study.series
    assert (series.state, series.slices, series.complete, study.revision) == ("CONCLUDED", 30, True, 1)
    assert series.finding is not None
    got = {one["sop_instance_uid"]: one["probabilities"]["any"] for one in series.finding["slices"]}
    got["study"] = series.finding["probabilities"]["any"]
    assert got == pytest.approx(expected, abs=0.001)
    positions = [one["position_mm"] for one in series.finding["slices"]]
    assert positions == sorted(positions)
    (report,) = (pacs.directory / study.study_instance_uid).iterdir()
    assert {one.sop_instance_uid for one in study.deliveries} == {report.stem}
    assert {one.state for one in study.deliveries} == {"DELIVERED"}


def slices(node: NodeProcesses, uid: str) -> int:
    """Count the slices of a study that were received."""
    return sum(series.slices for study in node.status(uid).studies for series in study.series)


def planes(node: NodeProcesses, uid: str) -> int:
    """Count the slices of a study that were scored."""
    database = open_database(node.config.database_url)
    with database.reading() as connection:
        count = (
            select(func.count())
            .select_from(PlaneRow)
            .join(SeriesRow, SeriesRow.id == PlaneRow.series_id)
            .join(StudyRow, StudyRow.id == SeriesRow.study_id)
            .where(StudyRow.study_instance_uid == uid)
        )
        number = connection.execute(count).scalar_one()
    database.close()
    return number
