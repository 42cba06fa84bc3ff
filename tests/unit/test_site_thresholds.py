"""A site's thresholds: signed off, sealed, taken for one model, and never replaced without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ich_node.errors import ModelError
from ich_node.model.site_thresholds import (
    SITE_THRESHOLDS,
    SiteThresholds,
    read_thresholds,
    remove_thresholds,
    sign_off,
    signed_thresholds,
)
from ich_node.pipeline import Model, open_model
from tests.validating import proposed_for


def proposal(tiny_model: Model) -> SiteThresholds:
    return proposed_for(tiny_model.identity)


def test_signed_thresholds_are_read_as_they_were_written(tmp_path: Path, tiny_model: Model) -> None:
    signed = sign_off(proposal(tiny_model), tmp_path, "Eva", "the committee says so", 1e9)
    assert signed_thresholds(tmp_path) == signed
    assert signed.signed_off is not None
    assert signed.signed_off.in_words() == "signed off by Eva on 2001-09-09"
    assert (tmp_path / SITE_THRESHOLDS).stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [tmp_path / SITE_THRESHOLDS]


def test_where_nothing_was_signed_off_there_are_none(tmp_path: Path) -> None:
    assert signed_thresholds(tmp_path) is None
    assert not remove_thresholds(tmp_path)


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"format_version": 1}', "null", "[" * 100_000])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    (tmp_path / SITE_THRESHOLDS).write_text(damage)
    with pytest.raises(ModelError, match="no thresholds of a site, or damaged; restore it, or take it away"):
        signed_thresholds(tmp_path)
    assert remove_thresholds(tmp_path)
    assert signed_thresholds(tmp_path) is None


def test_a_number_that_was_edited_by_hand_is_found(tmp_path: Path, tiny_model: Model) -> None:
    sign_off(proposal(tiny_model), tmp_path, "Eva", "because", 1e9)
    path = tmp_path / SITE_THRESHOLDS
    fields = json.loads(path.read_text())
    fields["thresholds"]["any"]["low"] = 0.01
    path.write_text(json.dumps(fields))
    with pytest.raises(ModelError, match="changed since it was written"):
        read_thresholds(path)


def test_a_proposal_that_nobody_signed_off_is_refused_in_the_state_folder(tmp_path: Path, tiny_model: Model) -> None:
    (tmp_path / SITE_THRESHOLDS).write_bytes(proposal(tiny_model).to_bytes())
    with pytest.raises(ModelError, match="nobody signed these thresholds off"):
        signed_thresholds(tmp_path)


def test_a_link_that_leads_nowhere_is_no_lack_of_thresholds(tmp_path: Path) -> None:
    (tmp_path / SITE_THRESHOLDS).symlink_to(tmp_path / "gone")
    with pytest.raises(ModelError, match="cannot be read"):
        signed_thresholds(tmp_path)


def test_a_model_takes_the_thresholds_that_were_signed_off_for_it(
    tmp_path: Path, tiny_bundle: Path, tiny_model: Model
) -> None:
    signed = sign_off(proposal(tiny_model), tmp_path, "Eva", "because", 1e9)
    model = open_model(tiny_bundle, "torch", threads=1, site_thresholds=signed)
    assert {(pair.low, pair.high) for pair in model.bundle.thresholds.values()} == {(0.25, 0.75)}
    classes = ", ".join(signed.site_classes)
    assert model.identity.site_thresholds == f"signed off by Eva on 2001-09-09, for {classes}"
    assert model.identity.operating_points["any"].startswith("any: sensitivity 1.00 (lower bound 0.95")
    assert model.identity.sha256 == tiny_model.identity.sha256


def test_a_class_that_the_site_has_no_positives_of_is_not_said_to_be_always_indeterminate(
    tmp_path: Path, tiny_bundle: Path, tiny_model: Model
) -> None:
    proposed = proposal(tiny_model)
    unknown = {"positives": 0, "sensitivity": None, "sensitivity_low": None, "meets_bound": False}
    points = proposed.operating_points | {"epidural": proposed.operating_points["epidural"].model_copy(update=unknown)}
    signed = sign_off(proposed.model_copy(update={"operating_points": points}), tmp_path, "Eva", "because", 1e9)
    model = open_model(tiny_bundle, "torch", threads=1, site_thresholds=signed)
    assert model.identity.operating_points["epidural"] == "epidural: no positive study of the site to measure on"


def test_another_model_keeps_its_own_thresholds(tmp_path: Path, tiny_bundle: Path, tiny_model: Model) -> None:
    other = proposal(tiny_model)
    other = other.model_copy(update={"model": other.model.model_copy(update={"sha256": "cd" * 32})})
    model = open_model(
        tiny_bundle, "torch", threads=1, site_thresholds=sign_off(other, tmp_path, "Eva", "because", 1e9)
    )
    assert model.bundle.thresholds == tiny_model.bundle.thresholds
    assert not model.identity.site_thresholds
