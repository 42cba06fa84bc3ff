"""Another model takes the place of the one that answers, or scores in silence beside it, while studies come."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from ich_node.config import Config
from ich_node.database import Base, Database, ModelChoiceRow, PlaneRow, SecondOpinionRow, SeriesRow
from ich_node.decode import DecoderPool
from ich_node.doctor import examine
from ich_node.errors import DatabaseBusy, ModelError, ObjectStoreAway, SpoolFull
from ich_node.job_queue import requeue
from ich_node.job_queue.model_choices import choose_model, model_before, model_in_use
from ich_node.model.memory import MEMORY
from ich_node.model_shelf import shelved_model, shelved_models
from ich_node.models_in_use import active_choice
from ich_node.pacs import send_study
from ich_node.phantom import PhantomSettings, draw_volume, write_series
from ich_node.pipeline import Model, analyse_series, open_model
from ich_node.queries.models import compare_models
from ich_node.queries.workers import running_workers
from ich_node.records import ModelChoice, ModelUse, SeriesContent
from ich_node.worker import Worker, loop, models, second
from ich_node.worker.bench import Workbench
from ich_node.worker.models import ModelKeeper
from tests.running import PartsOfANode, parts_of_a_node, settings, wait_for


def rows(database: Database, table: type[Base]) -> list[Any]:
    with database.reading() as connection:
        return list(connection.execute(select(table).order_by(*table.__table__.primary_key)))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """A folder of bundles: ``first`` as it is, ``second`` with other weights, ``third`` of a later version."""
    from ich_node.model.untrained import make_untrained_bundle

    folder = tmp_path_factory.mktemp("shelf")
    shutil.copytree(tiny_bundle, folder / "first")
    heads = [draw_volume(PhantomSettings(lesion="subdural", slices=8, rows=64, slice_spacing_mm=16))]
    make_untrained_bundle(folder / "second", heads, backbone="test_resnet", size_px=64, name="other", seed=5)
    shutil.copytree(tiny_bundle, folder / "third")
    stated = json.loads((folder / "third" / "manifest.json").read_text()) | {"version": "9.0.0"}
    (folder / "third" / "manifest.json").write_text(json.dumps(stated))
    return folder


@dataclass
class Node:
    """Parts of a node whose worker looks for models that people choose."""

    parts: PartsOfANode
    shelf: Path
    folder: Path
    keeper: ModelKeeper

    def choose(self, name: str | None, use: ModelUse = ModelUse.ACTIVE) -> int:
        config = self.parts.config
        model = None if name is None else shelved_model(self.shelf / name)
        return choose_model(
            self.parts.database, use, model, reason="a test", by="somebody", configured=config.model.directory
        )

    def look(self) -> None:
        """Let the worker look now, and not only in two seconds."""
        self.keeper._look_at = 0.0
        self.parts.worker.take_chosen_model()

    def settled(self, choice_id: int) -> Any:
        """Wait until a choice was taken or refused; give its row."""

        def look() -> Any:
            self.look()
            (row,) = [one for one in rows(self.parts.database, ModelChoiceRow) if one.id == choice_id]
            return row if row.settled_at else None

        return wait_for(look, "the choice is settled")

    def analyse(self, lesion: str | None = "subdural") -> SeriesRow:
        head = PhantomSettings(lesion=lesion, slices=12, rows=64, slice_spacing_mm=11.0)
        number = len(list(self.folder.iterdir())) if self.folder.exists() else 0
        files = write_series(self.folder / str(number), head)
        assert send_study(files, "127.0.0.1", self.parts.receiver.port, "ICH_NODE") == len(files)
        self.parts.settle()
        return rows(self.parts.database, SeriesRow)[-1]

    def read_all_again(self) -> list[Any]:
        """Let the silent model score everything; give what it says."""
        while self.parts.worker.read_again():
            pass
        return rows(self.parts.database, SecondOpinionRow)


@pytest.fixture
def node(tmp_path: Path, shelf: Path, decoder: DecoderPool) -> Iterator[Node]:
    model = open_model(shelf / "first", "torch", threads=1, show_untrained=True)
    with parts_of_a_node(settings(tmp_path / "state", shelf / "first"), model, decoder) as parts:
        keeper = ModelKeeper(parts.config, parts.database, active_choice(parts.config, parts.database))
        parts.worker = Worker(parts.config, parts.database, model, decoder, "2.25.1", models=keeper)
        yield Node(parts, shelf, tmp_path / "sent", keeper)
        keeper.close()


def test_the_bundles_beside_the_configured_one_are_listed_with_what_they_say_of_themselves(shelf: Path) -> None:
    found = shelved_models(shelf / "second")
    assert [one.directory.name for one in found] == ["second", "first", "third"]
    models = [open_model(one.directory, "torch", threads=1).identity for one in found]
    assert [(one.version, one.sha256) for one in found] == [(one.version, one.sha256) for one in models]
    assert found[2].version == "9.0.0"
    assert not any(one.fault for one in found)
    assert [one.trained for one in found] == [False] * 3


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"name": "x"}', b" " * 5_000_000])
def test_a_manifest_that_is_none_is_named_and_stops_no_list(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "manifest.json").write_bytes(content)
    found = shelved_models(tmp_path / "gone")
    assert [(one.name, bool(one.fault)) for one in found] == [("gone", True), ("bad", True)]


def test_a_chosen_model_answers_once_it_is_loaded_and_the_one_before_until_then(node: Node) -> None:
    assert node.analyse().model["name"] == "tiny"
    choice = node.choose("second")
    assert node.analyse().model["name"] == "tiny", "nobody has looked yet"
    assert node.settled(choice).state == "IN_USE"
    assert node.analyse().model["name"] == "other"
    state = json.loads((node.parts.config.state_directory / MEMORY).read_text())
    assert state["other"]["sha256"] == shelved_model(node.shelf / "second").sha256
    assert node.parts.status().series == {"CONCLUDED": 3}


def test_what_is_half_scored_when_the_model_changes_is_scored_by_one_model_alone(node: Node) -> None:
    files = write_series(node.folder / "half", PhantomSettings(slices=12, rows=64, slice_spacing_mm=11.0))
    assert send_study(files[:6], "127.0.0.1", node.parts.receiver.port, "ICH_NODE") == 6
    wait_for(lambda: node.parts.worker.step() and node.parts.status().series, "some of it is scored")
    assert node.settled(node.choose("second")).state == "IN_USE"
    assert send_study(files[6:], "127.0.0.1", node.parts.receiver.port, "ICH_NODE") == 6
    node.parts.settle()
    (series,) = rows(node.parts.database, SeriesRow)
    assert series.model["name"] == "other"
    planes = rows(node.parts.database, PlaneRow)
    assert {one.model_sha256 for one in planes} == {shelved_model(node.shelf / "second").sha256}
    assert len(planes) == 12


def test_the_way_back_leads_to_the_model_before(node: Node) -> None:
    config, database = node.parts.config, node.parts.database
    for name in ("second", "third"):
        assert node.settled(node.choose(name)).state == "IN_USE"
    before = model_before(database, config.model.directory)
    assert before is not None
    assert before.directory == node.shelf / "second"
    assert node.settled(node.choose("second")).state == "IN_USE"
    again = model_before(database, config.model.directory)
    assert again is not None
    assert again.directory == node.shelf / "third"
    assert [one.state for one in rows(database, ModelChoiceRow)] == ["REPLACED", "REPLACED", "IN_USE"]


def test_an_older_version_that_a_person_chose_is_used(node: Node) -> None:
    for name in ("third", "first"):
        assert node.settled(node.choose(name)).state == "IN_USE"
    assert node.analyse().model["version"] != "9.0.0"


@pytest.mark.parametrize("fault", ["a weight is altered", "another bundle lies there", "the folder is gone"])
def test_a_model_that_cannot_be_used_is_refused_and_the_one_before_works_on(
    node: Node, tmp_path: Path, fault: str
) -> None:
    doubtful = tmp_path / "doubtful"
    shutil.copytree(node.shelf / "second", doubtful)
    model = shelved_model(doubtful)
    if fault == "a weight is altered":
        weights = next(doubtful.glob("*.safetensors"))
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    else:
        shutil.rmtree(doubtful)
        if fault == "another bundle lies there":
            shutil.copytree(node.shelf / "third", doubtful)
    directory = node.parts.config.model.directory
    choice = choose_model(
        node.parts.database, ModelUse.ACTIVE, model, reason="a test", by="somebody", configured=directory
    )
    row = node.settled(choice)
    assert row.state == "REFUSED"
    said = {
        "a weight is altered": "SHA-256",
        "another bundle lies there": "changed since",
        "the folder is gone": "no model here",
    }
    assert said[fault] in row.error
    assert model_in_use(node.parts.database, ModelUse.ACTIVE, directory) is None
    assert node.analyse().model["name"] == "tiny"


def test_a_model_that_was_refused_is_tried_once_and_the_one_in_use_is_not_loaded_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert node.settled(node.choose("second")).state == "IN_USE"
    opened: list[str] = []

    def refuse(_config: Config, choice: ModelChoice) -> Model:
        opened.append(choice.name)
        raise ModelError("no")

    monkeypatch.setattr(models, "open_chosen_model", refuse)
    assert node.settled(node.choose("third")).state == "REFUSED"
    for _ in range(3):
        node.look()
    assert opened == ["tiny"]
    assert node.keeper._loading is None


def test_a_model_in_whose_place_another_was_chosen_while_it_loaded_is_not_taken(node: Node) -> None:
    first = node.choose("second")
    node.look()
    assert node.keeper._loading is not None
    second = node.choose("third")
    assert node.settled(second).state == "IN_USE"
    states = {one.id: one.state for one in rows(node.parts.database, ModelChoiceRow)}
    assert states == {first: "REPLACED", second: "IN_USE"}
    assert node.analyse().model["version"] == "9.0.0"


def test_a_full_disk_delays_a_model_and_nothing_says_that_it_is_used(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [SpoolFull("no room"), None]

    def remember(*_: object) -> None:
        if (error := said.pop(0)) is not None:
            raise error

    monkeypatch.setattr(models, "remember_model", remember)
    choice = node.choose("second")
    with pytest.raises(SpoolFull):
        node.settled(choice)
    assert [one.state for one in rows(node.parts.database, ModelChoiceRow)] == ["REQUESTED"]
    assert node.settled(choice).state == "IN_USE"
    assert node.analyse().model["name"] == "other"


def test_a_worker_whose_chosen_model_is_gone_takes_the_one_that_was_asked_for_since(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = shutil.copytree(node.shelf / "second", tmp_path / "gone")
    directory, database = node.parts.config.model.directory, node.parts.database
    node.settled(
        choose_model(database, ModelUse.ACTIVE, shelved_model(gone), reason="a test", by="Eva", configured=directory)
    )
    shutil.rmtree(gone)
    with pytest.raises(ModelError, match="Eva chose it: `ich-node model use DIRECTORY` chooses another"):
        loop.run_worker(node.parts.config)
    node.choose("third")
    used: list[str] = []
    monkeypatch.setattr(Worker, "run", lambda self, _stop: used.append(self._bench.model.identity.version))
    loop.run_worker(node.parts.config)
    assert used == ["9.0.0"]
    assert [one.state for one in rows(database, ModelChoiceRow)] == ["REPLACED", "IN_USE"]


def test_who_names_another_model_in_the_configuration_means_that_one(node: Node, tmp_path: Path) -> None:
    assert node.settled(node.choose("second")).state == "IN_USE"
    same = node.parts.config
    chosen = active_choice(same, node.parts.database)
    assert chosen is not None
    assert chosen.directory == node.shelf / "second"
    other = same.model_copy(update={"model": same.model.model_copy(update={"directory": node.shelf / "third"})})
    assert active_choice(other, node.parts.database) is None


def test_the_silent_model_scores_what_was_answered_and_tells_nobody(node: Node) -> None:
    before = node.analyse()
    assert node.settled(node.choose("second", ModelUse.SILENT)).state == "IN_USE"
    first, second = node.analyse(), node.analyse(None)
    said = node.read_all_again()

    assert {one.series_id for one in said} == {first.id, second.id}, "what was answered before is none of its traffic"
    assert before.id not in {one.series_id for one in said}
    assert {one.model_name for one in said} == {"other"}
    by_itself = open_model(node.shelf / "second", "torch", threads=1, show_untrained=True)
    for one in said:
        series = next(row for row in (first, second) if row.id == one.series_id)
        assert one.active_triage == series.triage
        assert one.active_probabilities == series.finding["probabilities"]
        assert one.probabilities != one.active_probabilities
        assert one.probabilities.keys() == one.active_probabilities.keys()
        assert one.seconds > 0
    assert by_itself.identity.sha256 == said[0].model_sha256
    study = node.parts.status().studies
    assert {one.revision for one in study} == {1}, "no study says anything else for it"
    assert node.read_all_again() == said, "nothing is scored twice"


def test_the_silent_model_says_what_it_would_say_as_the_active_one(node: Node) -> None:
    node.settled(node.choose("second", ModelUse.SILENT))
    node.analyse()
    (said,) = node.read_all_again()
    node.settled(node.choose("second"))
    uid = rows(node.parts.database, SeriesRow)[0].series_instance_uid
    assert requeue(node.parts.database, uid=uid, failed_only=False) == 1
    node.parts.settle()
    (series,) = rows(node.parts.database, SeriesRow)
    assert series.model["name"] == "other"
    assert series.triage == said.triage
    assert series.finding["probabilities"] == pytest.approx(said.probabilities, abs=1e-6)


def test_where_they_differ_is_counted_and_named(node: Node) -> None:
    node.settled(node.choose("second", ModelUse.SILENT))
    node.analyse()
    (said,) = node.read_all_again()
    found = compare_models(node.parts.database, said.model_sha256, said.active_sha256)
    assert found.compared == 1
    assert found.counts == {(said.active_triage or "no result", said.triage or "no result"): 1}
    difference = said.probabilities["any"] - said.active_probabilities["any"]
    assert found.mean_difference == pytest.approx(difference)
    assert found.mean_distance == pytest.approx(abs(difference))
    assert len(found.differences) == (said.triage != said.active_triage)
    assert compare_models(node.parts.database, said.model_sha256, "another").compared == 0


def test_a_silent_model_that_fails_is_dropped_and_nothing_else_is_hurt(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = node.choose("second", ModelUse.SILENT)
    node.settled(choice)
    node.analyse()
    assert node.keeper.silent is not None
    _, model = node.keeper.silent
    monkeypatch.setattr(type(model.engine), "score", _no_numbers(model))
    assert node.read_all_again() == []
    assert node.keeper.silent is None
    (row,) = rows(node.parts.database, ModelChoiceRow)
    assert (row.state, row.error) == ("REFUSED", "the model gave NaN")
    assert node.analyse().state == "CONCLUDED"


def _no_numbers(failing: Model) -> Any:
    real = type(failing.engine).score

    def score(engine: Any, images: Any) -> Any:
        if engine is failing.engine:
            raise ModelError("the model gave NaN")
        return real(engine, images)

    return score


def test_what_nobody_could_be_told_of_is_told_the_next_time(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database stays locked in the moment in which a model is refused, and in which a silent one is dropped."""
    monkeypatch.setattr(models, "settle_choice", _busy_once(models.settle_choice))
    broken = node.choose("third")
    (node.shelf / "third").rename(node.shelf / "elsewhere")
    try:
        with pytest.raises(DatabaseBusy):
            node.settled(broken)
        assert node.settled(broken).state == "REFUSED"
    finally:
        (node.shelf / "elsewhere").rename(node.shelf / "third")

    silent = node.choose("second", ModelUse.SILENT)
    node.settled(silent)
    node.analyse()
    assert node.keeper.silent is not None
    monkeypatch.setattr(type(node.keeper.silent[1].engine), "score", _no_numbers(node.keeper.silent[1]))
    monkeypatch.setattr(models, "give_up_silent", _busy_once(models.give_up_silent))
    with pytest.raises(DatabaseBusy):
        node.read_all_again()
    assert node.read_all_again() == []
    assert node.keeper.silent is None
    assert [one.state for one in rows(node.parts.database, ModelChoiceRow) if one.id == silent] == ["REFUSED"]


def _busy_once(work: Callable[..., Any]) -> Callable[..., Any]:
    troubles = [DatabaseBusy("the database stayed locked")]

    def once(*arguments: Any) -> Any:
        if troubles:
            raise troubles.pop()
        return work(*arguments)

    return once


def test_a_store_that_is_away_for_a_moment_takes_no_slice_from_a_second_opinion(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.settled(node.choose("second", ModelUse.SILENT))
    series = node.analyse()
    real, asked, planes = Workbench.file, count(1), list[int]()

    def file(bench: Workbench, name: str) -> Path:
        if next(asked) == 5:
            raise ObjectStoreAway("the object store does not answer")
        return real(bench, name)

    def judged(content: SeriesContent, *others: Any) -> Any:
        planes.append(len(content.planes))
        return analyse_series(content, *others)

    monkeypatch.setattr(Workbench, "file", file)
    monkeypatch.setattr(second, "analyse_series", judged)
    with pytest.raises(ObjectStoreAway):
        node.read_all_again()
    (said,) = node.read_all_again()
    assert said.series_id == series.id
    assert planes == [12]


def test_images_that_are_gone_give_no_second_opinion_and_hold_nothing_up(node: Node) -> None:
    node.settled(node.choose("second", ModelUse.SILENT))
    series = node.analyse()
    for path in node.parts.config.state_directory.glob("spool/**/*.dcm"):
        path.unlink()
    (said,) = node.read_all_again()
    assert (said.series_id, said.triage) == (series.id, None)
    assert said.reason is not None


def test_no_silent_model_any_more(node: Node) -> None:
    node.settled(node.choose("second", ModelUse.SILENT))
    assert node.keeper.silent is not None
    assert node.settled(node.choose(None, ModelUse.SILENT)).state == "IN_USE"
    assert node.keeper.silent is None
    node.analyse()
    assert node.read_all_again() == []


def test_the_model_that_answers_is_not_compared_with_itself(node: Node) -> None:
    node.settled(node.choose("first", ModelUse.SILENT))
    node.analyse()
    assert node.read_all_again() == []


def test_a_worker_says_on_what_it_computes_while_it_runs(node: Node) -> None:
    stop = threading.Event()
    running = threading.Thread(target=node.parts.worker.run, args=(stop,))
    running.start()
    (found,) = wait_for(lambda: running_workers(node.parts.database), "it tells of itself")
    stop.set()
    running.join()
    engine = node.parts.worker._bench.model.engine
    assert (found.engine, found.device, found.model_name) == (engine.name, engine.device, "tiny")
    assert 2**20 < found.memory_used < found.memory_total
    assert running_workers(node.parts.database) == ()


def test_a_worker_goes_on_with_the_chosen_model_after_a_restart_and_doctor_names_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.settled(node.choose("second"))
    used: list[str] = []

    monkeypatch.setattr(Worker, "run", lambda self, _stop: used.append(self._bench.model.identity.name))
    loop.run_worker(node.parts.config)
    assert used == ["other"]
    (model,) = [one for one in examine(node.parts.config) if one.what == "model"]
    assert model.well
    assert "other" in model.says
    assert "somebody chose it" in model.says
