"""A node is validated by its own answers and by bulk scores, and works with the thresholds that are signed off."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ich_node.cli import main
from ich_node.config import parse_config
from ich_node.database import Database, open_database, prepare_database
from ich_node.decode import DecoderPool
from ich_node.doctor import examine
from ich_node.model.site_thresholds import SITE_THRESHOLDS, read_thresholds, sign_off
from ich_node.models_in_use import open_configured_model
from ich_node.pacs import send_study
from ich_node.phantom import LESIONS, PhantomSettings, write_series
from ich_node.pipeline import Model
from ich_node.stored_files import LocalFiles
from ich_node.validation.node_results import node_results
from tests.running import as_toml, parts_of_a_node, settings
from tests.validating import Head, add_answer, proposed_for, read_head

HEAD = PhantomSettings(lesion="subdural", slices=12, rows=64, slice_spacing_mm=11.0)


@dataclass
class Site:
    """A state folder with a configuration, and no node that runs."""

    folder: Path
    values: dict[str, Any]
    database: Database
    head: Head

    @property
    def state(self) -> Path:
        return Path(self.values["node"]["state_directory"])

    def run(self, *words: str) -> int:
        return main([*words, "--config", str(self.folder / "ich-node.toml")])

    def labels(self, *lines: str) -> str:
        path = self.folder / "labels.csv"
        path.write_text("\n".join(["study_instance_uid,any,subdural", *lines]) + "\n")
        return str(path)

    def audited(self) -> str:
        return "".join(path.read_text() for path in (self.state / "audit").iterdir() if path.is_file())


@pytest.fixture
def site(tmp_path: Path, tiny_bundle: Path, decoder: DecoderPool) -> Iterator[Site]:
    values = settings(tmp_path / "state", tiny_bundle)
    (tmp_path / "ich-node.toml").write_text(as_toml(values))
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    database = open_database(f"sqlite:///{state / 'ich-node.sqlite'}")
    prepare_database(database, state)
    head = read_head(write_series(state / "spool" / "head", HEAD), state, decoder)
    yield Site(tmp_path, values, database, head)
    database.close()


def fill(site: Site, studies: int = 120) -> list[str]:
    """Answer studies; give the lines of their labels. The last is missed, the one before a false alarm."""
    chance = random.Random(1)
    lines = []
    for number in range(studies):
        bleeds = number % 3 == 0
        any_ = chance.uniform(0.62, 0.99) if bleeds else chance.uniform(0.01, 0.29)
        any_ = {studies - 1: 0.02, studies - 2: 0.97}.get(number, any_)
        bleeds = {studies - 1: True, studies - 2: False}.get(number, bleeds)
        add_answer(site.database, f"1.2.9.{number}", any_, site.head, days_ago=number / 10, station=f"CT{number % 2}")
        lines.append(f"1.2.9.{number},{int(bleeds)},{int(bleeds)}")
    return lines


def test_answers_of_a_node_become_a_report_figures_and_proposed_thresholds(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = fill(site)
    add_answer(site.database, "1.2.9.900", None, site.head)
    out = site.folder / "out"

    told = site.run("validate", "--labels", site.labels(*lines[1:], "1.2.9.900,1,", "1.2.77,0,"), "--output", str(out))

    assert told == 0
    said = capsys.readouterr().out
    assert "121 studies with a label: 119 analysed, 1 not analysed, 1 left out; 1 study without a label" in said
    assert "left out: 1.2.77: not among the results" in said
    figures = json.loads((out / "validation.json").read_text())
    assert figures["classes"]["any"]["positive"]["sensitivity"]["of"] == 40
    assert figures["classes"]["any"]["positive"]["sensitivity"]["count"] == 39
    assert [one["name"] for one in figures["groups"][0]["groups"]] == ["CT0", "CT1"]
    assert figures["analysed"][0] | {"age_years": 60, "slice_thickness_mm": 5.0} == figures["analysed"][0]
    assert [one["kind"] for one in figures["worst"]] == ["missed", "false alarm"]
    page = (out / "validation.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "slice 7 of 12" in page
    assert read_thresholds(out / "thresholds.proposed.json").signed_off is None
    assert (out / "validation.html").stat().st_mode & 0o077 == 0
    assert base64.b64encode(b"validation report").decode() in site.audited()


def test_images_that_are_gone_are_said_to_be_gone(site: Site) -> None:
    lines = fill(site, 30)
    for one in (site.state / "spool" / "head").iterdir():
        one.unlink()
    assert site.run("validate", "--labels", site.labels(*lines), "--output", str(site.folder / "out")) == 0
    page = (site.folder / "out" / "validation.html").read_text()
    assert "image not kept" in page
    assert "image/png" not in page


def test_a_table_with_faults_is_refused_with_all_of_them_and_nothing_is_written(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = site.labels("1.2.9.1,2,", "x,1,", "1.2.9.1,0,1")
    assert site.run("validate", "--labels", labels, "--output", str(site.folder / "out")) == 2
    said = capsys.readouterr().err
    assert [f"line {number}" in said for number in (2, 3, 4)] == [True] * 3
    assert not (site.folder / "out").exists()


def test_a_folder_that_holds_something_is_left_as_it_is(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (site.folder / "out").mkdir()
    (site.folder / "out" / "validation.html").write_text("signed")
    labels = site.labels("1.2.9.1,1,")
    assert site.run("validate", "--labels", labels, "--output", str(site.folder / "out")) == 2
    assert (site.folder / "out" / "validation.html").read_text() == "signed"
    assert "nothing was changed" in capsys.readouterr().err


def test_what_score_prints_is_validated_without_a_node(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["study_instance_uid,any"]
    for number, lesion in enumerate((None, *LESIONS[:2])):
        head = replace(HEAD, lesion=lesion, seed=number, study_instance_uid=f"1.2.5.{number}")
        write_series(tmp_path / "heads" / str(number), head)
        lines.append(f"1.2.5.{number},{int(lesion is not None)}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    model = ("--model", str(tiny_bundle), "--engine", "torch", "--test-model")
    assert main(["score", str(tmp_path / "heads"), "--json", *model]) == 0
    (tmp_path / "scores.json").write_text(capsys.readouterr().out)

    words = ["--labels", str(tmp_path / "labels.csv"), "--scores", str(tmp_path / "scores.json")]
    assert main(["validate", *words, "--output", str(tmp_path / "out"), "--prevalence", "0.1"]) == 0

    figures = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert (len(figures["analysed"]), figures["prevalence"]) == (3, 0.1)
    assert figures["model"]["sha256"] == read_thresholds(tmp_path / "out" / "thresholds.proposed.json").model.sha256
    page = (tmp_path / "out" / "validation.html").read_text()
    assert "Too few studies" in page
    assert "TEST MODEL" in page


# ------------------------------------------------------------------------------------------ thresholds


def test_thresholds_are_signed_off_shown_and_removed_and_that_is_recorded(
    site: Site, tiny_model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    proposed = site.folder / "thresholds.proposed.json"
    proposed.write_bytes(proposed_for(tiny_model.identity).to_bytes())
    why = ("--by", "Eva", "--reason", "the committee")

    assert site.run("thresholds", "sign-off", str(proposed), *why) == 0
    assert site.run("thresholds", "show") == 0
    shown = capsys.readouterr().out
    assert "signed off by Eva on 20" in shown
    assert "low 0.25, high 0.75 (of this site); any: sensitivity 1.00" in shown
    assert any("thresholds of the site, signed off by Eva" in one.says for one in examine(parse_config(site.values)))

    assert site.run("thresholds", "remove", *why) == 0
    assert site.run("thresholds", "remove", *why) == 1
    assert site.run("thresholds", "sign-off", str(proposed), "--reason", " ") == 2
    audited = site.audited()
    assert "thresholds-sign-off" in audited
    assert "thresholds-remove" in audited


def test_a_worker_answers_by_the_thresholds_of_the_site_and_the_report_says_so(
    tmp_path: Path, tiny_bundle: Path, tiny_model: Model, decoder: DecoderPool
) -> None:
    values = settings(tmp_path / "state", tiny_bundle)
    (tmp_path / "state").mkdir(mode=0o700)
    own = tiny_model.bundle.thresholds["any"]
    sign_off(proposed_for(tiny_model.identity, 0.0, 0.0), tmp_path / "state", "Eva", "everything", 1e9)
    model = open_configured_model(parse_config(values))
    assert model.bundle.thresholds["any"] != own
    files = write_series(tmp_path / "sent", replace(HEAD, lesion=None))
    with parts_of_a_node(values, model, decoder) as node:
        assert send_study(files, "127.0.0.1", node.receiver.port, "ICH_NODE") == len(files)
        (study,) = node.settle().studies
        assert study.triage == "positive"  # from 0.0 on everything is
        (series,) = study.series
        assert series.finding is not None
        assert series.finding["thresholds"]["any"] == {"low": 0.0, "high": 0.0}
        (found,) = node_results(node.database, LocalFiles(node.config.state_directory), {study.study_instance_uid})
        reports = list((node.config.state_directory / "results").rglob("*.dcm"))
    assert found.thresholds["any"].high == 0.0
    assert (found.sex, found.model) == ("O", (model.identity.name, model.identity.version, model.identity.sha256))
    assert b"thresholds of the site: signed off by Eva on 2001-09-09, for " in reports[0].read_bytes()


def test_a_worker_of_another_model_warns_and_uses_the_models_own(
    tmp_path: Path, tiny_bundle: Path, tiny_model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    other = replace(tiny_model.identity, sha256="cd" * 32)
    sign_off(proposed_for(other), tmp_path / "state", "Eva", "because", 1e9)
    config = parse_config(settings(tmp_path / "state", tiny_bundle))
    assert open_configured_model(config).bundle.thresholds == tiny_model.bundle.thresholds
    assert "the site's thresholds are of another model" in caplog.text


def test_a_worker_does_not_start_on_damaged_thresholds(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / SITE_THRESHOLDS).write_text("{")
    (tmp_path / "ich-node.toml").write_text(as_toml(settings(tmp_path / "state", tiny_bundle)))
    command = [sys.executable, "-m", "ich_node", "work", "--config", str(tmp_path / "ich-node.toml")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 78
    assert "damaged; restore it, or take it away with `ich-node thresholds remove`" in ended.stderr
