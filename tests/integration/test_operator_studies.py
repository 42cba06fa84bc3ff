"""What operators do with one study, and what administrators see and change, over a real ``ich-node web``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from lxml import etree

from ich_node.audit import open_trail
from ich_node.audit.reading import newest_messages, read_messages
from ich_node.database import (
    AccountRow,
    DeletionRow,
    DeliveryRow,
    FileToDeleteRow,
    InstanceRow,
    LegalHoldRow,
    ResultRow,
    SeriesRow,
    SessionRow,
)
from tests.alerting import SECRET
from tests.auditing import recorded_in
from tests.operators import PASSWORD, Person, ServedSite, log_in, served_site
from tests.running import free_port


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    """One ``ich-node web`` for all tests of these pages."""
    folder = tmp_path_factory.mktemp("studies")
    secret = folder / "chat.secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    destination = {"name": "pacs-0", "ae_title": "PACS", "host": "127.0.0.1", "port": free_port(),
                   "objects": ["report"]}  # fmt: skip
    chat = {"name": "chat", "url": "http://127.0.0.1:9/as-good-as-a-password", "secret_file": str(secret)}
    with served_site(folder, destination=[destination], alert_webhook=[chat]) as served:
        yield served


@pytest.fixture
def operator(served: ServedSite) -> Person:
    return served.people["operator"]


@pytest.fixture
def administrator(served: ServedSite) -> Person:
    return served.people["administrator"]


def delivered(served: ServedSite) -> str:
    """A study that is done with: everything of it arrived."""
    uid = served.add_study()
    served.change(DeliveryRow, {"study_id": served.study_of(uid).id}, state="DELIVERED", finished_at=1.0)
    return uid


def states_of_deliveries(served: ServedSite, uid: str) -> set[str]:
    return {row.state for row in served.rows(DeliveryRow, study_id=served.study_of(uid).id)}


def files_of(served: ServedSite, uid: str) -> list[Any]:
    results = served.rows(ResultRow, study_id=served.study_of(uid).id)
    return [served.image_of(uid), *(served.state / row.path for row in results)]


# ------------------------------------------------------------------------------------------- one study


def test_the_page_of_a_study_has_deeds_for_operators_alone(served: ServedSite) -> None:
    uid = delivered(served)
    assert "For operators" in served.people["operator"].see(f"/studies/{uid}")
    assert "For operators" not in served.people["reader"].see(f"/studies/{uid}")


def test_a_study_is_queued_and_sent_again(served: ServedSite, operator: Person) -> None:
    uid = delivered(served)
    assert "1 delivery will be sent again" in operator.do(f"/studies/{uid}/resend")
    assert states_of_deliveries(served, uid) == {"PENDING"}
    assert "1 series queued again" in operator.do(f"/studies/{uid}/requeue")
    assert served.series_of(uid).state == "RECEIVING"
    assert uid in etree.tostring(served.recorded("resend")[-1].root).decode()
    assert served.recorded("requeue")[-1].details["By"] == "operator-1"
    assert operator.post("/studies/1.2.3/requeue").status_code == 404


def test_a_study_is_held_and_its_hold_is_lifted_with_reasons(served: ServedSite, operator: Person) -> None:
    uid = delivered(served)
    assert operator.post(f"/studies/{uid}/hold", reason="").status_code == 422
    assert "under legal hold" in operator.do(f"/studies/{uid}/hold", reason="a claim")
    (hold,) = served.rows(LegalHoldRow, study_id=served.study_of(uid).id)
    assert (hold.reason, hold.placed_by, hold.lifted_at) == ("a claim", "operator-1", None)
    assert uid in (served.state / "legal-holds.json").read_text()
    assert operator.post(f"/studies/{uid}/hold", reason="another").status_code == 409
    assert "a claim (operator-1)" in operator.see(f"/studies/{uid}")

    refused = operator.post(f"/studies/{uid}/delete", reason="no matter", sure="yes", confirm="yes")
    assert refused.status_code == 409
    assert "under legal hold" in refused.text
    assert all(path.exists() for path in files_of(served, uid))

    assert operator.post(f"/studies/{uid}/lift").status_code == 422
    assert "lifted" in operator.do(f"/studies/{uid}/lift", reason="settled")
    (hold,) = served.rows(LegalHoldRow, study_id=served.study_of(uid).id)
    assert hold.lifted_by == "operator-1"
    assert operator.post(f"/studies/{uid}/lift", reason="again").status_code == 409
    reasons = [served.recorded(one)[-1].details["Reason"] for one in ("legal-hold-set", "legal-hold-lift")]
    assert reasons == ["a claim", "settled"]


def test_a_study_is_deleted_with_a_reason_and_that_stays_on_record(served: ServedSite, operator: Person) -> None:
    uid, other = delivered(served), delivered(served)
    files = files_of(served, uid)
    assert all(path.exists() for path in files)
    assert operator.post(f"/studies/{uid}/delete", sure="yes").status_code == 422
    assert operator.post(f"/studies/{uid}/delete", reason="of a volunteer").status_code == 422
    assert all(path.exists() for path in files)

    page = operator.do(f"/studies/{uid}/delete", reason="of a volunteer", sure="yes")
    assert f"{len(files)} files deleted" in page
    assert not [path for path in files if path.exists()]
    assert all(path.exists() for path in files_of(served, other))
    assert not served.rows(FileToDeleteRow)
    deletions = served.rows(DeletionRow, study_id=served.study_of(uid).id)
    assert [(one.what, one.files, one.rule) for one in deletions] == [
        ("images", 1, "by operator-1: of a volunteer"), ("reports", len(files) - 1, "by operator-1: of a volunteer"),
    ]  # fmt: skip
    (instance,) = served.rows(InstanceRow, series_id=served.series_of(uid).id)
    assert (instance.path, len(instance.sha256)) == (None, 64)
    record = served.recorded("delete")[-1]
    assert (record.details["Reason"], record.details["Files"]) == ("of a volunteer", str(len(files)))
    assert any(uid in one.studies for one in recorded_in(served.state, "DICOM Instances Accessed") if one.action == "D")
    assert "by operator-1: of a volunteer" in operator.see("/node")
    assert operator.post(f"/studies/{uid}/delete", reason="again", sure="yes").status_code == 409


@pytest.mark.parametrize("kind", ["undelivered", "uncommitted", "open", "quarantined"])
def test_what_is_open_or_undelivered_needs_a_second_word(served: ServedSite, operator: Person, kind: str) -> None:
    uid = served.add_study() if kind == "undelivered" else delivered(served)
    study, series = served.study_of(uid), served.series_of(uid)
    if kind == "uncommitted":
        served.change(DeliveryRow, {"study_id": study.id}, commitment_ask_at=1.0)
    if kind == "open":
        served.change(SeriesRow, {"id": series.id}, state="RECEIVING", concluded_at=None, lease_owner="a worker")
    if kind == "quarantined":
        served.change(SeriesRow, {"id": series.id}, state="QUARANTINED", reason="TWO_PATIENTS")
    files = files_of(served, uid)

    asked = operator.post(f"/studies/{uid}/delete", reason="a <test>", sure="yes")
    assert asked.status_code == 409
    assert "Nothing was deleted yet" in asked.text
    assert all(path.exists() for path in files)
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', asked.text.partition("<h1>")[2]))
    assert fields["reason"] == "a &lt;test&gt;"
    fields["reason"] = "a <test>"
    answer = operator.browser.post(f"/studies/{uid}/delete", data=fields)
    assert answer.status_code == 303
    assert not [path for path in files if path.exists()]
    assert not states_of_deliveries(served, uid) & {"PENDING", "SENDING", "DEAD"}
    after = served.series_of(uid)
    wanted = {"open": "NOT_ANALYSED", "quarantined": "REJECTED"}
    assert (after.state, after.lease_owner) == (wanted.get(kind, "CONCLUDED"), None)
    (delivery,) = served.rows(DeliveryRow, study_id=study.id)
    assert delivery.commitment_ask_at is None


# --------------------------------------------------------------------------- configuration, audit trail


def test_the_configuration_names_secrets_and_holds_none(served: ServedSite, administrator: Person) -> None:
    page = administrator.see("/node/configuration")
    for said in ("[node]", "[[destination]]", "chat.secret", "http://127.0.0.1:9/…", "state_directory"):
        assert said in page
    assert "as-good-as-a-password" not in page
    assert SECRET not in page
    assert served.recorded("show-configuration")[-1].details["By"] == "administrator-1"


def test_the_audit_trail_is_shown_newest_first_and_that_is_recorded(
    served: ServedSite, administrator: Person, operator: Person
) -> None:
    older, uid = delivered(served), delivered(served)
    operator.do(f"/studies/{older}/resend")
    operator.do(f"/studies/{uid}/resend")
    page = administrator.see("/node/audit")
    assert 0 < page.index(uid) < page.index(older)
    assert "ich-node:resend" in page
    used = recorded_in(served.state, "Audit Log Used")[-1]
    assert "administrator-1" in used.users
    assert used.details["Command"] == "page"

    logins = administrator.browser.get("/node/audit", params={"kind": "User Authentication"}).text
    assert "User Authentication, Login" in logins
    assert "ich-node:resend" not in logins
    of_study = administrator.browser.get("/node/audit", params={"search": uid}).text
    assert "ich-node:resend" in of_study
    assert "User Authentication, Login" not in of_study
    assert recorded_in(served.state, "Audit Log Used")[-1].details["Command"] == f"page, with {uid}"


def test_the_trail_is_read_from_its_end_as_from_its_beginning(served: ServedSite) -> None:
    trail = open_trail(served.site.box.config, "test")
    for number in range(150):
        trail.operated("somebody", "127.0.0.1", "nothing", Number=str(number))
    trail.close()
    folder = served.state / "audit"
    assert max(path.stat().st_size for path in folder.glob("*.audit")) > 2 * 64 * 1024, "more than two pieces"
    forward = list(read_messages(folder))
    assert list(newest_messages(folder)) == forward[::-1]


# ------------------------------------------------------------------------------------------- accounts


def test_an_account_is_made_and_its_password_typed_twice(served: ServedSite, administrator: Person) -> None:
    port = served.site.box.config.web.port
    new = {"name": "nina", "role": "reader", "password": PASSWORD, "again": PASSWORD}
    for wrong in ({"again": "another one"}, {"name": "n"}, {"password": "short", "again": "short"}, {"role": "king"}):
        assert administrator.post("/node/accounts/add", **new | wrong).status_code == 422
    assert not served.rows(AccountRow, name="nina")
    page = administrator.do("/node/accounts/add", **new)
    assert "The account is made" in page
    assert "nina" in page
    assert PASSWORD not in page
    assert log_in("nina", port).status_code == 303
    assert administrator.post("/node/accounts/add", **new).status_code == 422
    record = served.recorded("user-add")[-1]
    assert (record.details["Name"], record.details["Role"], record.details["By"]) == (
        "nina",
        "reader",
        "administrator-1",
    )
    assert PASSWORD not in "".join(path.read_text() for path in (served.state / "audit").glob("*.audit"))


def test_an_account_is_changed_logged_out_disabled_and_enabled(served: ServedSite, administrator: Person) -> None:
    port = served.site.box.config.web.port
    administrator.do("/node/accounts/add", name="otto", role="viewer", password=PASSWORD, again=PASSWORD)
    administrator.do("/node/accounts/role", name="otto", role="operator")
    (row,) = served.rows(AccountRow, name="otto")
    assert row.role == "operator"
    assert log_in("otto", port).status_code == 303
    assert served.rows(SessionRow, account_id=row.id)
    assert "Logged out at 1 browser" in administrator.do("/node/accounts/logout", name="otto")
    assert not served.rows(SessionRow, account_id=row.id)
    administrator.do("/node/accounts/disable", name="otto")
    assert log_in("otto", port).status_code == 401
    administrator.do("/node/accounts/enable", name="otto")
    assert log_in("otto", port).status_code == 303
    commands = ("user-role", "user-logout", "user-disable", "user-enable")
    assert [served.recorded(one)[-1].details["Name"] for one in commands] == ["otto"] * 4


def test_the_only_administrator_stays_one(served: ServedSite, administrator: Person) -> None:
    refused = [
        administrator.post("/node/accounts/disable", name="administrator-1"),
        administrator.post("/node/accounts/role", name="administrator-1", role="viewer"),
        administrator.post("/node/accounts/disable", name="nobody"),
        administrator.post("/node/accounts/logout", name="nobody"),
    ]
    assert {one.status_code for one in refused} == {422}
    assert "only administrator" in refused[0].text
    assert administrator.see("/node/accounts")
