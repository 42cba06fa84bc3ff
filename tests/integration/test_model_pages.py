"""The page of models over a real ``ich-node web``: what it shows, who may choose, and what is recorded of it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert

from ich_node.cli import main
from ich_node.database import ModelChoiceRow, SecondOpinionRow, WorkerRow
from ich_node.job_queue.model_choices import model_choices, settle_choice
from ich_node.job_queue.workers import forget_worker, note_worker
from ich_node.model_shelf import shelved_model
from ich_node.records import ModelChoice, RunningWorker
from tests.auditing import recorded_in
from tests.operators import Person, ServedSite, served_site, words_of


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """Two bundles of one kind, and one that is none."""
    folder = tmp_path_factory.mktemp("shelf")
    for number, name in enumerate(("first", "second")):
        shutil.copytree(tiny_bundle, folder / name)
        stated = json.loads((folder / name / "manifest.json").read_text())
        metric = {"name": "study any auc", "data": "phantoms", "value": 0.9, "low": 0.8, "high": 0.95}
        of_its_own = {"name": f"<b>{name}", "version": f"1.{number}.0", "metrics": [metric]}
        (folder / name / "manifest.json").write_text(json.dumps(stated | of_its_own))
    (folder / "third").mkdir()
    (folder / "third" / "manifest.json").write_text("{")
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, shelf: Path) -> Iterator[ServedSite]:
    with served_site(tmp_path_factory.mktemp("models"), model={"directory": str(shelf / "first")}) as served:
        yield served


@pytest.fixture
def administrator(served: ServedSite) -> Iterator[Person]:
    yield served.people["administrator"]
    with served.database.writing() as connection:
        for table in (SecondOpinionRow, ModelChoiceRow):
            connection.execute(delete(table))


def newest(served: ServedSite) -> ModelChoice:
    return model_choices(served.database)[0]


def test_models_are_listed_with_what_they_say_of_themselves_and_never_as_markup(
    served: ServedSite, shelf: Path
) -> None:
    page = served.people["operator"].browser.get("/node/models")
    said = words_of(page)
    assert "<b>first" not in page.text
    for words in ("<b>first 1.0.0", "<b>second 1.1.0", "UNTRAINED", "study any auc: 0.9 (0.8 to 0.95)", "as configured",
                  "its manifest is not understood", str(shelf / "second")):  # fmt: skip
        assert words in said
    assert "Let it answer" not in said, "an operator looks, and does not choose"


def test_an_administrator_chooses_with_a_reason_and_it_is_recorded(
    served: ServedSite, administrator: Person, shelf: Path
) -> None:
    sha256 = shelved_model(shelf / "second").sha256
    said = administrator.do("/node/models/use", sha256=sha256, reason="it was validated here")
    assert "is being loaded" in said
    choice = newest(served)
    assert (choice.use, choice.directory, choice.state) == ("active", shelf / "second", "REQUESTED")
    assert settle_choice(served.database, choice)
    said = administrator.see("/node/models")
    assert "Chosen by administrator-1" in said
    assert "it was validated here" in said
    assert "The way back <b>first 1.0.0" in said
    (recorded,) = served.recorded("model-use")
    assert {key: recorded.details[key] for key in ("By", "Name", "Version", "Sha256", "Reason")} == {
        "By": "administrator-1", "Name": "<b>second", "Version": "1.1.0", "Sha256": sha256,
        "Reason": "it was validated here",
    }  # fmt: skip

    administrator.do("/node/models/use", sha256=shelved_model(shelf / "first").sha256, reason="back")
    assert newest(served).directory == shelf / "first"


def test_the_page_says_which_workers_run_and_on_what(served: ServedSite) -> None:
    operator = served.people["operator"]
    assert "No worker runs" in operator.see("/node/models")
    of_gpu = RunningWorker("cuda", "NVIDIA X, bf16", 3 * 2**30, 16 * 2**30, "ich", "2.0", "0" * 64)
    note_worker(served.database, "host:1", of_gpu)
    note_worker(served.database, "host:2", of_gpu)
    said = operator.see("/node/models")
    assert said.count("A worker runs ich 2.0 by cuda on NVIDIA X, bf16, 3.0 GiB of 16.0 GiB") == 2
    served.change(WorkerRow, {"owner": "host:1"}, seen_at=time.time() - 600)
    assert operator.see("/node/models").count("A worker runs") == 1
    note_worker(served.database, "host:2", of_gpu)
    assert [row.owner for row in served.rows(WorkerRow)] == ["host:2"], "who has gone without a word is forgotten"
    forget_worker(served.database, "host:2")
    assert "No worker runs" in operator.see("/node/models")


@pytest.mark.parametrize("path", ["use", "silent", "silence-none"])
@pytest.mark.parametrize("role", ["viewer", "reader", "operator"])
def test_nobody_else_chooses(served: ServedSite, shelf: Path, path: str, role: str) -> None:
    sha256 = shelved_model(shelf / "second").sha256
    assert served.people[role].post(f"/node/models/{path}", sha256=sha256, reason="x").status_code == 403
    assert model_choices(served.database) == []


@pytest.mark.parametrize("role", ["viewer", "reader"])
def test_who_does_not_look_after_the_node_does_not_see_its_models(served: ServedSite, role: str) -> None:
    assert served.people[role].browser.get("/node/models").status_code == 403


def test_without_a_reason_or_of_an_unknown_bundle_nothing_is_chosen(
    served: ServedSite, administrator: Person, shelf: Path
) -> None:
    sha256 = shelved_model(shelf / "second").sha256
    assert administrator.post("/node/models/use", sha256=sha256, reason=" ").status_code == 422
    for unknown in ("", "0" * 64):
        assert administrator.post("/node/models/use", sha256=unknown, reason="x").status_code == 409
    assert model_choices(served.database) == []


def test_a_refused_model_says_why(served: ServedSite, administrator: Person, shelf: Path) -> None:
    administrator.do("/node/models/silent", sha256=shelved_model(shelf / "second").sha256, reason="to compare")
    settle_choice(served.database, newest(served), "its weights are <i>altered")
    assert "refused its weights are <i>altered" in administrator.see("/node/models")


def test_two_models_on_the_same_traffic_are_compared(served: ServedSite, administrator: Person, shelf: Path) -> None:
    first, second = shelved_model(shelf / "first"), shelved_model(shelf / "second")
    administrator.do("/node/models/silent", sha256=second.sha256, reason="to compare")
    settle_choice(served.database, newest(served))
    assert "Nothing was scored by both yet" in administrator.see("/node/models")
    uids = [served.add_study() for _ in range(3)]
    for uid, active, silent in zip(uids, (0.9, 0.2, 0.7), (0.8, 0.3, 0.1), strict=True):
        _opinion(served, uid, (first.sha256, active), (second.sha256, silent))
    said = administrator.see("/node/models")
    assert "They say the same of 2 of 3 series" in said
    assert "lies 26.7 points apart in the mean, the silent one's 20.0 lower" in said
    page = administrator.browser.get("/node/models").text
    assert f'/studies/{uids[2]}"' in page
    assert f'/studies/{uids[0]}"' not in page, "they agree there"
    assert "positive 70.0 %" in said
    assert "negative 10.0 %" in said

    administrator.do("/node/models/silence-none", reason="seen enough")
    settle_choice(served.database, newest(served))
    assert "No model does" in administrator.see("/node/models")
    assert [one.details["Name"] for one in served.recorded("model-silent")][-1] == "none"


def _opinion(served: ServedSite, uid: str, active: tuple[str, float], silent: tuple[str, float]) -> None:
    def said(probability: float) -> str:
        return "positive" if probability > 0.5 else "negative"

    values: dict[str, Any] = {
        "study_id": served.study_of(uid).id, "series_id": served.series_of(uid).id, "model_name": "x",
        "model_version": "1", "model_sha256": silent[0], "triage": said(silent[1]),
        "probabilities": {"any": silent[1]}, "active_sha256": active[0], "active_triage": said(active[1]),
        "active_probabilities": {"any": active[1]}, "seconds": 1.0, "made_at": 1.0,
    }  # fmt: skip
    with served.database.writing() as connection:
        connection.execute(insert(SecondOpinionRow).values(values))


@pytest.mark.usefixtures("administrator")
def test_a_command_chooses_as_the_page_does(
    served: ServedSite, shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", str(served.log.parent / "ich-node.toml")]
    given = ["--reason", "by hand", "--by", "me"]
    assert main(["model", "use", str(shelf / "second"), *given, *config]) == 0
    assert "asked for: <b>second 1.1.0" in capsys.readouterr().out
    choice = newest(served)
    assert (choice.use, choice.directory, choice.chosen_by) == ("active", shelf / "second", "me")
    assert main(["model", "silent", "--none", *given, *config]) == 0
    assert (newest(served).use, newest(served).directory) == ("silent", None)
    assert main(["model", "use", str(shelf / "third"), *given, *config]) == 78
    assert "not understood" in capsys.readouterr().err
    assert main(["model", "use", str(shelf / "second"), "--reason", " ", *config]) == 2
    commands = [one for one in recorded_in(served.state, "Security Alert") if one.details.get("By") == "me"]
    assert [one.details["Name"] for one in commands] == ["<b>second", "none"]
