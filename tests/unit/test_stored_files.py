"""Images and results in folders, and in a bucket of a real S3 server: the same in both."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ich_node.config import StorageSettings, parse_config
from ich_node.errors import ConfigError, ObjectStoreAway, SecretFileError, SpoolFull, StartError
from ich_node.service import boot_id
from ich_node.stored_files import BucketFiles, LocalFiles, StoredFiles, stored_files
from ich_node.stored_files.copies import LocalCopies
from ich_node.stored_files.s3 import PART_BYTES
from tests.object_store import ACCESS_KEY, BUCKET, Door, ObjectStore, copies_of, delete_copies, object_store, storage
from tests.running import settings

MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("moto")) as store:
        yield store


@pytest.fixture
def store(server: ObjectStore) -> ObjectStore:
    server.empty()
    return server


def files_at(folder: Path, endpoint: str, **changes: object) -> BucketFiles:
    values = settings(folder / "state", folder, storage=storage(folder, endpoint, **changes))
    files = stored_files(parse_config(values))
    assert isinstance(files, BucketFiles)
    return files


@pytest.fixture(params=["folders", "bucket"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoredFiles]:
    if request.param == "folders":
        yield LocalFiles(tmp_path)
        return
    found = files_at(tmp_path, request.getfixturevalue("store").url)
    yield found
    found.close()


@pytest.fixture
def bucket(store: ObjectStore, tmp_path: Path) -> Iterator[BucketFiles]:
    found = files_at(tmp_path, store.url)
    yield found
    found.close()


# ---------------------------------------------------------------------------------------- the same in both


def test_what_is_written_is_listed_read_measured_and_deleted(files: StoredFiles) -> None:
    files.prepare()
    files.make_folder("results")
    image, report = files.new_image(), "results/0a.dcm"
    files.write(image, [b"ima", memoryview(b"ge")])
    files.write(report, [b"report"])
    assert files.path(image).read_bytes() == b"image"
    assert [path.read_bytes() for path in files.paths([report, image])] == [b"report", b"image"]
    assert files.name_of(files.path(report)) == report
    assert (files.size(image), files.size(report), files.size("results/none.dcm")) == (5, 6, 0)
    assert [(one.name, one.size_bytes) for one in files.found("spool", ".dcm")] == [(image, 5)]
    assert abs(next(files.found("spool", ".dcm")).written_at - time.time()) < 60
    assert [one.name for one in files.found("results", ".npz")] == []
    for _ in range(2):  # a kill may have come after the first
        files.delete(image)
    assert not files.path(image).exists()
    assert [one.name for one in files.found("spool", "")] == []


def test_a_file_put_aside_keeps_its_bytes_and_is_no_result_any_more(files: StoredFiles) -> None:
    files.make_folder("results")
    files.write("results/0b.dcm", [b"damaged"])
    aside = files.put_aside("results/0b.dcm")
    assert aside == "results/0b.unreadable"
    assert files.path(aside).read_bytes() == b"damaged"
    assert [one.name for one in files.found("results", ".dcm")] == []


def test_names_of_images_differ_and_lie_in_the_spool(files: StoredFiles) -> None:
    names = {files.new_image() for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith("spool/") and name.endswith(".dcm") for name in names)


# ------------------------------------------------------------------------------------------------ the bucket


def test_images_of_one_second_are_told_apart_by_their_time(bucket: BucketFiles) -> None:
    names = []
    for _ in range(3):
        names.append(bucket.new_image())
        bucket.write(names[-1], [b"x"])
        time.sleep(0.002)
    found = sorted(bucket.found("spool", ".dcm"), key=lambda one: one.written_at)
    assert [one.name for one in found] == names


def test_an_image_that_was_copied_into_the_bucket_is_as_old_as_the_store_says(
    store: ObjectStore, bucket: BucketFiles
) -> None:
    store.client().put_object(Bucket=BUCKET, Key=f"node/spool/4f/{'4f' * 16}.dcm", Body=b"x")
    (one,) = bucket.found("spool", ".dcm")
    assert abs(one.written_at - time.time()) < 60


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
def test_objects_of_every_size_are_stored_whole_each_with_the_digest_of_what_was_sent(
    store: ObjectStore, tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    with Door(store) as door:
        files = files_at(tmp_path, door.url)
        files.write("spool/00/a.dcm", [content[:100], content[100 : MEBIBYTE + 7], content[MEBIBYTE + 7 :]])
        assert store.objects() == {"node/spool/00/a.dcm": content}
        delete_copies(files.state_directory)
        assert files.path("spool/00/a.dcm").read_bytes() == content
        files.close()
    assert door.count("PUT") == max(1, -(-size // PART_BYTES))
    assert door.without_digest == []


def test_many_objects_are_listed_page_by_page(store: ObjectStore, bucket: BucketFiles) -> None:
    client = store.client()
    for number in range(25):
        client.put_object(Bucket=BUCKET, Key=f"node/results/{number:04d}.dcm", Body=b"x")
    assert len(list(bucket._bucket.objects("results/", most=7))) == 25


def test_a_file_that_was_written_here_is_read_without_asking_for_it(store: ObjectStore, tmp_path: Path) -> None:
    with Door(store) as door:
        files = files_at(tmp_path, door.url)
        files.write("spool/00/a.dcm", [b"image"])
        assert files.path("spool/00/a.dcm").read_bytes() == b"image"
        assert door.count("GET") == 0
        delete_copies(files.state_directory)
        assert [path.read_bytes() for path in files.paths(["spool/00/a.dcm"])] == [b"image"]
        assert files.path("spool/00/a.dcm").read_bytes() == b"image"
        assert door.count("GET") == 1
        files.close()


def test_what_is_deleted_leaves_no_copy(bucket: BucketFiles) -> None:
    bucket.write("results/a.dcm", [b"report"])
    assert copies_of(bucket.state_directory)
    bucket.delete("results/a.dcm")
    assert copies_of(bucket.state_directory) == []


def test_an_upload_in_parts_that_was_cut_is_no_object_and_is_ended_by_housekeeping(
    store: ObjectStore, bucket: BucketFiles
) -> None:
    client = store.client()
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="node/spool/00/half.dcm")["UploadId"]
    client.upload_part(Bucket=BUCKET, Key="node/spool/00/half.dcm", UploadId=upload, PartNumber=1, Body=b"half")
    assert list(bucket.found("spool", "")) == []
    assert list(bucket.unfinished(0.0)) == []
    (delete,) = bucket.unfinished(time.time())  # this server says of each that it began in 2010
    delete()
    assert client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []


def test_pieces_that_end_in_an_error_leave_no_object(store: ObjectStore, bucket: BucketFiles) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x" * (2 * PART_BYTES)
        raise OSError("the disk with the rest of it failed")

    with pytest.raises(OSError, match="the rest of it"):
        bucket.write("spool/00/a.dcm", pieces())
    assert store.objects() == {}
    assert store.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []


def test_the_look_of_doctor_leaves_nothing_behind(store: ObjectStore, bucket: BucketFiles) -> None:
    assert "takes, lists, gives back and deletes objects" in bucket.check()
    assert store.objects() == {}
    assert copies_of(bucket.state_directory) == []


# ------------------------------------------------------------------------------------------ whose bucket it is


def test_an_empty_bucket_is_taken_and_another_installation_is_refused(bucket: BucketFiles) -> None:
    for _ in range(2):
        bucket.claim("2.25.1")
    assert bucket.installation() is not None
    with pytest.raises(ConfigError, match=r"that of installation 2\.25\.1"):
        bucket.claim("2.25.2")


def test_a_bucket_with_objects_of_nobody_is_refused(store: ObjectStore, bucket: BucketFiles) -> None:
    store.client().put_object(Bucket=BUCKET, Key="node/results/a.dcm", Body=b"x")
    with pytest.raises(ConfigError, match="that says whose"):
        bucket.claim("2.25.1")


def test_nodes_with_prefixes_of_their_own_share_a_bucket(store: ObjectStore, tmp_path: Path) -> None:
    one, two = (files_at(tmp_path / name, store.url, url=f"s3://{BUCKET}/{name}") for name in ("one", "two"))
    one.claim("2.25.1")
    two.claim("2.25.2")
    one.write("results/a.dcm", [b"one"])
    assert [found.name for found in one.found("results", "")] == ["results/a.dcm"]
    assert list(two.found("results", "")) == []
    one.close()
    two.close()


# ------------------------------------------------------------------------------------------------ a store in trouble


def test_a_store_that_asks_for_patience_is_asked_again(store: ObjectStore, tmp_path: Path) -> None:
    with Door(store) as door:
        files = files_at(tmp_path, door.url)
        door.refuse = 2
        files.write("spool/00/a.dcm", [b"image"])
        assert (door.refused, door.count("PUT")) == (2, 1)
        files.close()
    assert store.objects() == {"node/spool/00/a.dcm": b"image"}


def test_a_store_that_never_takes_it_is_given_up_and_left_alone(store: ObjectStore, tmp_path: Path) -> None:
    with Door(store) as door:
        files = files_at(tmp_path, door.url, give_up_s=1.0)
        door.refuse = 10**6
        with pytest.raises(ObjectStoreAway, match="SlowDown"):
            files.write("spool/00/a.dcm", [b"image"])
        asked = door.refused
        assert asked > 1
        with pytest.raises(ObjectStoreAway, match="SlowDown"):
            files.path("results/a.dcm")
        assert door.refused == asked
        files.close()
    assert store.objects() == {}
    assert copies_of(files.state_directory) == []


def test_a_store_that_says_nothing_is_given_up(store: ObjectStore, tmp_path: Path) -> None:
    with Door(store) as door:
        door.delay_s = 5.0
        files = files_at(tmp_path, door.url, request_timeout_s=0.2, give_up_s=0.5)
        with pytest.raises(ObjectStoreAway, match="does not answer"):
            files.write("spool/00/a.dcm", [b"image"])
        files.close()


def test_no_store_at_all_is_told_at_the_start(tmp_path: Path) -> None:
    pytest.importorskip("s3fs")
    files = files_at(tmp_path, "http://127.0.0.1:9", give_up_s=0.3)
    with pytest.raises(StartError, match=r"s3://images/node/ at http://127\.0\.0\.1:9: the object store"):
        files.prepare()
    files.close()


def test_a_bucket_that_there_is_not_is_told_at_the_start_and_is_no_missing_image(
    store: ObjectStore, tmp_path: Path
) -> None:
    files = files_at(tmp_path, store.url, url="s3://another")
    with pytest.raises(StartError, match="NoSuchBucket"):
        files.prepare()
    time.sleep(2.1)
    with pytest.raises(ObjectStoreAway, match="NoSuchBucket"):
        files.path("spool/00/a.dcm")
    files.close()


def test_a_full_disk_of_this_machine_is_no_trouble_of_the_store(
    store: ObjectStore, bucket: BucketFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.write("spool/00/a.dcm", [b"image"])
    delete_copies(bucket.state_directory)

    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bucket._bucket, "fetch", full)
    with pytest.raises(SpoolFull):
        bucket.path("spool/00/a.dcm")


# ---------------------------------------------------------------------------------------------------- copies


def copies_in(folder: Path, most_bytes: int = 1000) -> LocalCopies:
    return LocalCopies(folder, most_bytes)


def add(copies: LocalCopies, name: str, size: int, age_s: float = 0.0) -> None:
    copies.add(name, lambda part: part.write_bytes(b"x" * size) >= 0)
    os.utime(copies.path(name), (time.time() - age_s,) * 2)


def test_the_copies_that_were_used_longest_ago_go_where_there_are_too_many(tmp_path: Path) -> None:
    copies = copies_in(tmp_path)
    for number, age_s in enumerate((4000, 3000, 2000)):
        add(copies, f"spool/00/{number}", 400, age_s)
    copies.clear_up()
    assert [copies.path(f"spool/00/{number}").exists() for number in range(3)] == [False, True, True]


def test_copies_in_use_stay_whatever_there_is(tmp_path: Path) -> None:
    copies = copies_in(tmp_path)
    for number in range(5):
        add(copies, f"spool/00/{number}", 400, 4000)
        assert copies.use(f"spool/00/{number}")
    copies.clear_up()
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 5


def test_a_copy_that_nobody_used_for_a_day_goes(tmp_path: Path) -> None:
    copies = copies_in(tmp_path)
    add(copies, "spool/00/a", 1, 2 * 86400)
    copies.clear_up()
    assert not copies.path("spool/00/a").exists()


def test_copies_of_before_the_boot_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = copies_in(tmp_path)
    add(copies, "spool/00/a", 1)
    assert boot_id()
    monkeypatch.setenv("ICH_NODE_BOOT_ID", "another")
    after = copies_in(tmp_path)
    assert not after.use("spool/00/a")
    add(after, "spool/00/b", 1)  # the first of a process clears up
    assert not copies.path("spool/00/a").exists()


def test_copies_of_a_host_whose_name_begins_alike_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "ct.site")
    other = copies_in(tmp_path)
    add(other, "spool/00/a", 1)
    monkeypatch.setattr(socket, "gethostname", lambda: "ct")
    copies_in(tmp_path).clear_up()
    assert other.use("spool/00/a")


def test_a_folder_that_another_process_clears_up_meanwhile_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = copies_in(tmp_path)
    for name in ("spool/00/a", "spool/01/a"):
        add(copies, name, 1)
    gone, real = copies.path("spool/00"), os.scandir

    def scandir(path: Any) -> Any:
        if path in (gone, str(gone)) and gone.exists():
            shutil.rmtree(gone)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    copies.clear_up()
    assert [copies.path(name).exists() for name in ("spool/00/a", "spool/01/a")] == [False, True]


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"url": "gs://bucket"}, "must be empty"),
        ({"url": "s3://Bucket"}, "must be empty"),
        ({"url": "s3://images/../other//x"}, "must be empty"),
        ({"endpoint": "https://user:secret@store"}, "must be empty"),
        ({"endpoint": "https://store:0"}, "must be empty"),
        ({"access_key": ""}, "needs access_key"),
        ({"secret_key_file": ""}, "needs access_key"),
        ({"endpoint": "http://store", "tls": True}, "without TLS"),
    ],
)
def test_a_slip_in_the_settings_is_told(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_config(settings(tmp_path, tmp_path, storage=storage(tmp_path, "https://store") | {"tls": True} | changes))


def test_the_secret_stands_in_no_text(tmp_path: Path) -> None:
    files = files_at(tmp_path, "http://store", secret="hush")
    assert "hush" not in repr(files._bucket._place) + str(files._bucket)


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    values = settings(tmp_path / "state", tmp_path, storage=storage(tmp_path, "http://store"))
    (tmp_path / "s3.secret").chmod(0o644)
    with pytest.raises(SecretFileError, match="0644"):
        stored_files(parse_config(values))


def test_without_a_url_everything_lies_in_the_state_folder(tmp_path: Path) -> None:
    assert StorageSettings().place is None
    config = parse_config(settings(tmp_path, tmp_path))
    assert stored_files(config).path("spool/00/a.dcm") == tmp_path / "spool/00/a.dcm"


def test_a_prefix_ends_with_one_slash() -> None:
    values = {"endpoint": "https://store", "access_key": ACCESS_KEY, "secret_key_file": "f"}
    for url, prefix in (("s3://images", ""), ("s3://images/", ""), ("s3://images/a/b/", "a/b/")):
        place = StorageSettings(url=url, **values).place
        assert place is not None
        assert (place.bucket, place.prefix) == ("images", prefix)
