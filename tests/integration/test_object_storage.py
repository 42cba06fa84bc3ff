"""A node whose images and results lie in a bucket of a real S3 server: the whole way, and what goes wrong on it."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from ich_node.accounts import Role, add_account
from ich_node.config import parse_config
from ich_node.database import FileToDeleteRow, InstanceRow, ResultRow, SeriesRow, open_database
from ich_node.errors import ConfigError, StartError
from ich_node.examination import examine_node
from ich_node.housekeeping import delete_expired, remove_strays
from ich_node.pacs import SmallPacs, send_study
from ich_node.phantom import PhantomSettings, write_series
from ich_node.rebuild import rebuild
from ich_node.records import REPORT_KIND
from ich_node.stored_files import stored_files
from tests.ct_series import ct_slice, encoded
from tests.integration.receiving import Running, running, send, store_bytes
from tests.integration.receiving import association as associated
from tests.object_store import BUCKET, Door, ObjectStore, copies_of, delete_copies, object_store, storage
from tests.page_browser import PASSWORD, log_in
from tests.running import (
    NodeProcesses,
    PartsOfANode,
    as_toml,
    free_port,
    leaks_a_socket,
    parts_of_a_node,
    settings,
    sockets_may_leak,
    wait_for,
)
from tests.unit.queueing import rows

HEAD = PhantomSettings(lesion="subdural", slices=12, rows=64, slice_spacing_mm=11.0)
SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700
RESTS_S = 2.1
"""A little longer than nothing is asked of a store that was given up."""
EVERYTHING = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("moto")) as store:
        yield store


@pytest.fixture
def store(server: ObjectStore) -> ObjectStore:
    server.empty()
    return server


@dataclass
class Site:
    """A node on an object store, which is started and stopped, and its PACS."""

    values: dict[str, Any]
    folder: Path
    model: Any
    decoder: Any
    pacs: SmallPacs
    store: ObjectStore

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def head(self) -> tuple[str, list[Path]]:
        uid = str(generate_uid())
        return uid, write_series(self.folder / uid, replace(HEAD, study_instance_uid=uid))

    def node(self) -> Any:
        return parts_of_a_node(self.values, self.model, self.decoder)

    def rows(self, table: Any) -> list[Any]:
        database = open_database(parse_config(self.values).database_url)
        try:
            return rows(database, table)
        finally:
            database.close()

    def in_folders(self) -> list[Path]:
        """Files where a node without an object store would keep images and results."""
        return [path for name in ("spool", "results") for path in (self.state / name).rglob("*") if path.is_file()]

    def keys(self, folder: str) -> set[str]:
        return {key.removeprefix("node/") for key in self.store.objects(f"node/{folder}/")}


@pytest.fixture
def site(tmp_path: Path, tiny_model: Any, decoder: Any, store: ObjectStore) -> Iterator[Site]:
    with SmallPacs(tmp_path / "pacs") as pacs:
        values = settings(
            tmp_path / "state", tmp_path, destinations=[("pacs", pacs.port)], storage=storage(tmp_path, store.url)
        )
        yield Site(values, tmp_path, tiny_model, decoder, pacs, store)
        stored_files(parse_config(values)).close()


def pass_on(node: PartsOfANode, files: list[Path]) -> None:
    assert send_study(files, "127.0.0.1", node.receiver.port, "ICH_NODE", "SCANNER1") == len(files)


# ------------------------------------------------------------------------------------------------ the whole way


def test_a_node_keeps_images_and_results_in_the_bucket_alone(site: Site) -> None:
    _, files = site.head()
    with site.node() as node:
        pass_on(node, files)
        (study,) = node.settle().studies
        assert {one.state for one in study.deliveries} == {"DELIVERED"}
    assert site.in_folders() == []
    assert site.keys("spool") == {row.path for row in site.rows(InstanceRow)}
    assert site.keys("results") == {row.path for row in site.rows(ResultRow)}
    assert len(site.keys("spool")) == 12
    sent = {dcmread(path).SOPInstanceUID for path in site.pacs.directory.rglob("*.dcm")}
    assert sent <= {row.sop_instance_uid for row in site.rows(ResultRow)}
    assert sent


def test_with_the_whole_state_folder_lost_the_bucket_alone_brings_everything_back(site: Site) -> None:
    uid, files = site.head()
    with site.node() as node:
        stored_files(node.config).claim(installation_of(node))
        pass_on(node, files)
        answer = node.settle().studies[0].triage
    before = {(row.sop_instance_uid, row.kind, row.revision, row.sha256, row.path) for row in site.rows(ResultRow)}
    received = {row.path: row.received_at for row in site.rows(InstanceRow)}
    sent = {dcmread(path).SOPInstanceUID for path in site.pacs.directory.rglob("*.dcm")}
    shutil.rmtree(site.state)
    done = rebuild(parse_config(site.values))
    assert (done.images, done.results, done.series, done.same_installation) == (12, len(before), {"CONCLUDED": 1}, True)
    after = {(row.sop_instance_uid, row.kind, row.revision, row.sha256, row.path) for row in site.rows(ResultRow)}
    assert after == before
    again = {row.path: row.received_at for row in site.rows(InstanceRow)}
    assert again.keys() == received.keys()
    assert sorted(again, key=again.__getitem__) == sorted(received, key=received.__getitem__)
    with site.node() as node:
        (study,) = node.settle().studies
        assert (study.study_instance_uid, study.revision, study.triage) == (uid, 1, answer)
        assert {one.state for one in study.deliveries} == {"DELIVERED"}
    assert {dcmread(path).SOPInstanceUID for path in site.pacs.directory.rglob("*.dcm")} == sent


def installation_of(node: PartsOfANode) -> str:
    (found,) = [json.loads((node.config.state_directory / "installation.json").read_text())["installation_uid"]]
    return str(found)


def test_a_damaged_result_is_put_aside_in_the_bucket(site: Site) -> None:
    _, files = site.head()
    with site.node() as node:
        stored_files(node.config).claim(installation_of(node))
        pass_on(node, files)
        node.settle()
    name = min(site.keys("results"))
    site.store.client().put_object(Bucket=BUCKET, Key=f"node/{name}", Body=b"no DICOM")
    shutil.rmtree(site.state)
    done = rebuild(parse_config(site.values))
    assert done.unreadable == [name.replace(".dcm", ".unreadable")]
    assert site.store.objects(f"node/{done.unreadable[0]}") == {f"node/{done.unreadable[0]}": b"no DICOM"}


def test_what_is_past_its_days_leaves_the_bucket_and_the_copies(site: Site) -> None:
    _, files = site.head()
    site.values["retention"] = {"images_days": 1e-7, "results_days": 1e-7}
    with site.node() as node:
        pass_on(node, files)
        node.settle()
        assert copies_of(site.state)
        assert delete_expired(node.config, node.database) > 12
    assert site.keys("spool") == site.keys("results") == set()
    assert copies_of(site.state) == []
    assert site.rows(FileToDeleteRow) == []


def test_what_is_to_go_waits_on_its_list_while_the_store_is_away(site: Site) -> None:
    _, files = site.head()
    site.values["retention"] = {"images_days": 1e-7, "results_days": 1000}
    with Door(site.store) as door:
        site.values["storage"] |= {"endpoint": door.url, "give_up_s": 1.0}
        with site.node() as node:
            pass_on(node, files)
            node.settle()
            delete_copies(site.state)  # the audit trail has to read whose they are
            door.refuse = 10**6
            assert delete_expired(node.config, node.database) == 0
            assert len(site.rows(FileToDeleteRow)) == len(site.keys("spool")) == 12
            door.refuse = 0
            time.sleep(RESTS_S)
            assert delete_expired(node.config, node.database) == 12
            stored_files(node.config).close()
    assert site.keys("spool") == set()


def test_a_result_without_a_row_is_a_stray_only_where_the_bucket_is_ours(site: Site, monkeypatch: Any) -> None:
    site.store.client().put_object(Bucket=BUCKET, Key="node/results/stray.dcm", Body=b"x")
    later = time.time() + 7200
    with site.node() as node:
        monkeypatch.setattr("ich_node.housekeeping.time.time", lambda: later)
        with pytest.raises(ConfigError, match="that says whose"):
            remove_strays(node.config, node.database)
        assert site.keys("results") == {"results/stray.dcm"}
        mark = (site.state / "installation.json").read_bytes()
        site.store.client().put_object(Bucket=BUCKET, Key="node/installation.json", Body=mark)
        assert remove_strays(node.config, node.database) == 1
    assert site.keys("results") == set()


def test_doctor_says_whether_the_bucket_can_be_used(site: Site) -> None:
    found = {one.what: one for one in examine_node(parse_config(site.values))}
    assert found["object store"].well, found["object store"].says
    assert "takes, lists, gives back and deletes" in found["object store"].says


# ------------------------------------------------------------------------------------------- success means safe


def stored_of(node: Running, store: ObjectStore) -> dict[str, bytes]:
    """The data sets in the bucket, by the SOP Instance UID of their rows."""
    objects = store.objects("node/spool/")
    part10 = {row.sop_instance_uid: objects.pop(f"node/{row.path}") for row in node.instances()}
    assert not objects, "no object without a row"
    return {uid: one[144 + int.from_bytes(one[140:144], "little") :] for uid, one in part10.items()}


def test_what_is_answered_with_success_lies_in_the_bucket_byte_for_byte(store: ObjectStore, tmp_path: Path) -> None:
    slices = [ct_slice(number) for number in range(5)]
    with running(tmp_path / "state", storage=storage(tmp_path, store.url)) as node:
        assert send(node.port, *slices) == [SUCCESS] * 5
        assert stored_of(node, store) == {one.SOPInstanceUID: encoded(one) for one in slices}
        assert send(node.port, *slices) == [SUCCESS] * 5  # held already
        assert len(store.objects("node/spool/")) == 5
        assert node.files() == []


def test_a_long_object_is_stored_in_parts(store: ObjectStore, tmp_path: Path) -> None:
    long = ct_slice(1, Rows=2048, Columns=4096, PixelData=bytes(range(256)) * (2 * 2048 * 4096 // 256))
    with running(tmp_path / "state", storage=storage(tmp_path, store.url)) as node:
        assert send(node.port, long) == [SUCCESS]
        assert stored_of(node, store) == {long.SOPInstanceUID: encoded(long)}


@leaks_a_socket
def test_a_store_that_hangs_while_images_come_takes_nothing_back_and_loses_nothing(
    store: ObjectStore, tmp_path: Path
) -> None:
    slices = [ct_slice(number) for number in range(12)]
    with running(
        tmp_path / "state", storage=storage(tmp_path, store.url, request_timeout_s=3.0, give_up_s=3.0)
    ) as node:
        assert send(node.port, *slices[:6]) == [SUCCESS] * 6
        with store.frozen():
            statuses = send(node.port, *slices)
            assert statuses == [SUCCESS] * 6 + [OUT_OF_RESOURCES] * 6  # what is held is held
        time.sleep(RESTS_S)
        wait_for(lambda: send(node.port, *slices) == [SUCCESS] * 12, "the repeat of the sender is taken")
        assert {row.sop_instance_uid for row in node.instances()} == {one.SOPInstanceUID for one in slices}
        objects = store.objects("node/spool/")
        for row in node.instances():
            assert f"node/{row.path}" in objects


@leaks_a_socket
def test_a_store_that_is_killed_in_the_middle_gets_no_success_for_what_it_has_not(
    store: ObjectStore, tmp_path: Path
) -> None:
    values = storage(tmp_path, store.url, give_up_s=2.0)
    with running(tmp_path / "state", storage=values) as node, associated(node.port) as to:
        statuses: dict[str, int | None] = {}
        for number in range(30):
            if number == 10:
                threading.Thread(target=store.kill).start()
            one = ct_slice(number)
            statuses[one.SOPInstanceUID] = store_bytes(to, encoded(one), instance_uid=one.SOPInstanceUID)
        good = {uid for uid, status in statuses.items() if status == SUCCESS}
        assert len(good) >= 10
        assert set(statuses.values()) == {SUCCESS, OUT_OF_RESOURCES}
        assert good == {row.sop_instance_uid for row in node.instances()}
        assert statuses[list(statuses)[-1]] == OUT_OF_RESOURCES
        store.start()
        store.make_bucket()  # it kept everything in memory
        time.sleep(RESTS_S)
        rest = [number for number in range(30) if ct_slice(number).SOPInstanceUID not in good]
        assert send(node.port, *map(ct_slice, rest)) == [SUCCESS] * len(rest)
        assert len(store.objects("node/spool/")) == len(rest)


def test_a_store_that_asks_for_patience_costs_no_image(store: ObjectStore, tmp_path: Path) -> None:
    with Door(store) as door, running(tmp_path / "state", storage=storage(tmp_path, door.url)) as node:
        door.refuse = 2
        assert send(node.port, ct_slice(1), ct_slice(2)) == [SUCCESS] * 2
        assert door.refused == 2
        assert len(store.objects("node/spool/")) == 2
        stored_files(node.config).close()


def test_an_object_that_no_row_speaks_of_is_adopted_at_the_next_start(store: ObjectStore, tmp_path: Path) -> None:
    values = storage(tmp_path, store.url)
    with running(tmp_path / "state", storage=values) as node:
        assert send(node.port, ct_slice(1), ct_slice(2)) == [SUCCESS] * 2
        lost = node.instances()[0].path
    content = store.objects(f"node/{lost}")[f"node/{lost}"]
    with running(tmp_path / "other", storage=values | {"url": f"s3://{BUCKET}/other"}) as node:
        assert node.instances() == []
    store.client().put_object(Bucket=BUCKET, Key=f"other/{lost}", Body=content)
    with running(tmp_path / "other", storage=values | {"url": f"s3://{BUCKET}/other"}) as node:
        assert [row.path for row in node.instances()] == [lost]


# ------------------------------------------------------------------------------------------- credentials, TLS


@leaks_a_socket
def test_wrong_keys_are_told_at_the_start_and_by_doctor_and_lose_no_image_later(
    store: ObjectStore, tmp_path: Path
) -> None:
    key, secret = store.check_credentials(EVERYTHING)
    try:
        wrong = storage(tmp_path / "wrong", store.url, access_key=key, secret="not it")
        config = parse_config(settings(tmp_path / "other", tmp_path, storage=wrong))
        with pytest.raises(StartError, match=r"the object store refuses \(\w+\): see \[storage\]"):
            stored_files(config).prepare()
        (found,) = [one for one in examine_node(config) if one.what == "object store"]
        assert not found.well
        assert "refuses" in found.says
        right = storage(tmp_path / "right", store.url, access_key=key, secret=secret)
        with running(tmp_path / "state", storage=right) as node:
            assert send(node.port, ct_slice(1)) == [SUCCESS]
            revoke(store, key, secret)
            assert send(node.port, ct_slice(2)) == [OUT_OF_RESOURCES]
            assert len(node.instances()) == 1
    finally:
        store.reset_authorization("inf")


def revoke(store: ObjectStore, key: str, secret: str) -> None:
    import boto3

    store.reset_authorization("inf")
    people = boto3.client(
        "iam", endpoint_url=store.url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret
    )
    people.delete_user_policy(UserName="node", PolicyName="may")
    store.reset_authorization("0")


@pytest.mark.slow
def test_the_store_is_reached_by_tls_and_its_certificate_is_checked(tmp_path: Path) -> None:
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "store.pem")
    issued.private_key_pem.write_to_path(tmp_path / "store.key")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with object_store(tmp_path / "moto", certificate=(tmp_path / "store.pem", tmp_path / "store.key")) as store:
        values = storage(tmp_path, store.url, tls=True, ca_file=str(tmp_path / "ca.pem"), give_up_s=2.0)
        boto(store, tmp_path / "ca.pem").create_bucket(Bucket=BUCKET)
        files = stored_files(parse_config(settings(tmp_path / "state", tmp_path, storage=values)))
        files.write("results/a.dcm", [b"report"])
        delete_copies(tmp_path / "state")
        assert files.path("results/a.dcm").read_bytes() == b"report"
        files.close()
        unknown = stored_files(parse_config(settings(tmp_path / "state", tmp_path, storage=values | {"ca_file": ""})))
        with pytest.raises(StartError, match="the object store does not answer"):
            unknown.prepare()
        unknown.close()


def boto(store: ObjectStore, ca_file: Path) -> Any:
    import boto3

    return boto3.client(
        "s3", endpoint_url=store.url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b",
        verify=str(ca_file),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- afterwards


def test_images_that_vanished_from_the_bucket_are_no_negative_result(site: Site) -> None:
    _, files = site.head()
    with site.node() as node:
        pass_on(node, files)
        for key in site.store.objects("node/spool/"):
            site.store.client().delete_object(Bucket=BUCKET, Key=key)
        delete_copies(site.state)
        (study,) = node.settle().studies
    assert study.triage is None
    assert {(row.state, row.reason) for row in site.rows(InstanceRow)} == {("UNREADABLE", "FILE_GONE")}
    assert {(row.state, row.reason) for row in site.rows(SeriesRow)} == {("NOT_ANALYSED", "NO_READABLE_SLICE")}


def test_one_image_that_vanished_makes_the_series_incomplete(site: Site) -> None:
    _, files = site.head()
    with site.node() as node:
        pass_on(node, files)
        gone = sorted(site.keys("spool"))[5]
        site.store.client().delete_object(Bucket=BUCKET, Key=f"node/{gone}")
        delete_copies(site.state)
        (study,) = node.settle().studies
    (row,) = [row for row in site.rows(InstanceRow) if row.path == gone]
    assert (row.state, row.reason) == ("UNREADABLE", "FILE_GONE")
    assert [row.complete for row in site.rows(SeriesRow)] == [False]
    assert study.triage != "negative"


def test_while_the_store_is_away_series_wait_and_their_attempts_are_not_counted(site: Site) -> None:
    _, files = site.head()
    with Door(site.store) as door:
        site.values["storage"] |= {"endpoint": door.url, "give_up_s": 1.0}
        with site.node() as node:
            pass_on(node, files)
            delete_copies(site.state)
            door.refuse = 10**6
            stop = threading.Event()
            thread = threading.Thread(target=node.worker.run, args=(stop,))
            thread.start()
            wait_for(lambda: door.refused > 10, "the worker has asked in vain")
            assert [row.attempts for row in site.rows(SeriesRow)] == [0]
            door.refuse = 0
            wait_for(lambda: [row.state for row in site.rows(SeriesRow)] == ["CONCLUDED"], "the series is concluded")
            stop.set()
            thread.join()
            assert {row.state for row in site.rows(InstanceRow)} == {"DECODED"}
            stored_files(node.config).close()


def test_a_result_that_cannot_be_fetched_now_is_delivered_later(site: Site) -> None:
    _, files = site.head()
    with Door(site.store) as door:
        site.values["storage"] |= {"endpoint": door.url, "give_up_s": 1.0}
        with site.node() as node:
            pass_on(node, files)
            wait_for(lambda: node.worker.step() and site.rows(ResultRow), "the report is saved")
            delete_copies(site.state)
            door.refuse = 10**6
            assert node.deliverer.step()
            assert {one.state for one in node.status().studies[0].deliveries} == {"PENDING"}
            door.refuse = 0
            time.sleep(RESTS_S)
            assert wait_for(lambda: node.deliverer.step(), "what waited is sent")
            assert {one.state for one in node.settle().studies[0].deliveries} == {"DELIVERED"}
            stored_files(node.config).close()


@pytest.mark.slow
def test_the_pages_show_what_lies_in_the_bucket(site: Site) -> None:
    uid, files = site.head()
    site.values["web"] = {"enabled": True, "port": free_port()}
    with site.node() as node:
        pass_on(node, files)
        node.settle()
        add_account(node.database, "eva", Role.READER, PASSWORD)
    delete_copies(site.state)
    report = next(row for row in site.rows(ResultRow) if row.kind == REPORT_KIND)
    image = dcmread(files[0])
    url = f"http://127.0.0.1:{site.values['web']['port']}"
    with NodeProcesses(site.folder, site.values, roles=("web",)), httpx.Client(base_url=url, timeout=60) as client:
        log_in(client, "eva")
        assert "Phäntom" in client.get(f"/studies/{uid}").text
        pixels = client.get(f"/studies/{uid}/slices/{image.SOPInstanceUID}")
        assert (pixels.status_code, len(pixels.content)) == (200, 2 * image.Rows * image.Columns)
        taken = client.get(f"/studies/{uid}/objects/{Path(report.path).name}")
        assert hashlib.sha256(taken.content).hexdigest() == report.sha256
        for key in site.store.objects("node/"):
            site.store.client().delete_object(Bucket=BUCKET, Key=key)
        delete_copies(site.state)
        assert client.get(f"/studies/{uid}/objects/{Path(report.path).name}").status_code == 404
        others = [dcmread(path).SOPInstanceUID for path in files[1:]]  # some were read ahead
        assert 410 in {client.get(f"/studies/{uid}/slices/{one}").status_code for one in others}


# ------------------------------------------------------------------------------------------- the real commands


@pytest.mark.slow
def test_the_real_commands_work_on_a_bucket_and_a_kill_between_object_and_row_loses_nothing(
    tmp_path: Path, tiny_bundle: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = str(generate_uid())
    files = write_series(tmp_path / "head", replace(HEAD, study_instance_uid=uid))
    with SmallPacs(tmp_path / "pacs") as pacs, sockets_may_leak(), ExitStack() as ending:
        values = settings(
            tmp_path / "state", tiny_bundle, destinations=[("pacs", pacs.port)], receiver={"processes": 2},
            storage=storage(tmp_path, store.url), self_test={"enabled": False},
        )  # fmt: skip
        node = NodeProcesses(tmp_path, values)
        node.config_path.write_text(as_toml(values))
        ending.push(node.__exit__)
        with monkeypatch.context() as armed:
            armed.setenv("ICH_NODE_FAILPOINT", "instance-before-row:3=kill")
            armed.setenv("ICH_NODE_MAY_BE_KILLED", "by a test")
            node.start("receive")
            node.wait_ready("receive")
        with pytest.raises(ConnectionError):
            send_study(files, "127.0.0.1", node.port, "ICH_NODE", "SCANNER1")
        assert (len(store.objects("node/spool/")), count(node)) == (3, 2)
        node.kill("receive")
        for role in node.roles:
            node.restart(role)
        assert count(node) == 3  # whole, and not lost, though its sender was never told
        assert send_study(files, "127.0.0.1", node.port, "ICH_NODE", "SCANNER1") == len(files)
        assert {one.state for one in node.wait_settled(uid).deliveries} == {"DELIVERED"}
        assert len(store.objects("node/spool/")) == len(files)
    assert not [path for name in ("spool", "results") for path in (tmp_path / "state" / name).rglob("*.*")]


def count(node: NodeProcesses) -> int:
    database = open_database(node.config.database_url)
    try:
        return len(rows(database, InstanceRow))
    finally:
        database.close()
