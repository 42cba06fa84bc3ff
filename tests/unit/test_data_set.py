"""A data set is looked over before it is called safe: who it is, and whether all of it came."""

from __future__ import annotations

import random
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, Sequence
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless

from ich_node.receive import data_set, statuses
from ich_node.receive.data_set import Identity, check_agreement, identify
from ich_node.receive.spool import split_file
from ich_node.receive.statuses import RefusedDataSet
from tests.ct_series import ct_slice

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
COMPREHENSIVE_SR_STORAGE = "1.2.840.10008.5.1.4.1.1.88.33"
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


def encoded(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, syntax == ImplicitVRLittleEndian
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the values that are odd on purpose
        write_dataset(buffer, ds)
    return buffer.getvalue()


def structured_report(**changes: Any) -> Dataset:
    """An object without pixels, its content in sequences that end by delimiter."""
    ds = ct_slice(1, SOPClassUID=COMPREHENSIVE_SR_STORAGE, Rows=None, Columns=None, PixelData=None, **changes)
    inner = Dataset()
    inner.TextValue = "inner"
    outer = Dataset()
    outer.ContentSequence = Sequence([inner])
    outer["ContentSequence"].is_undefined_length = True
    ds.ContentSequence = Sequence([outer, outer])
    ds["ContentSequence"].is_undefined_length = True
    return ds


def compressed(**changes: Any) -> bytes:
    ds = ct_slice(1, **changes)
    ds.PixelData = encapsulate([b"\x01\x02" * 300])
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    return encoded(ds)


def with_trailing_elements() -> Dataset:
    ds = ct_slice(1)
    ds.DataSetTrailingPadding = b"\0" * 100
    return ds


def refusal(content: bytes, syntax: str = ExplicitVRLittleEndian) -> RefusedDataSet:
    with pytest.raises(RefusedDataSet) as caught:
        identify(content, syntax)
    return caught.value


# ------------------------------------------------------------------------------------------ who it is


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_identifiers_are_read_from_the_data_set(syntax: str) -> None:
    ds = ct_slice(7)
    found = identify(memoryview(encoded(ds, syntax)), syntax)
    assert replace(found, acquired_at=None) == Identity(
        ds.SOPClassUID,
        ds.SOPInstanceUID,
        ds.StudyInstanceUID,
        ds.SeriesInstanceUID,
        "CT",
        warnings=(),
        patient_id="PID0001",
    )


UIDS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]


@pytest.mark.parametrize("keyword", UIDS)
@pytest.mark.parametrize(
    "value", [None, "", "../../etc/passwd", "/abs", "1.2.3/4", "1.2\\3.4", "1.2.x", "1." * 33, "1.2 3", "..\x00/.."]
)
def test_identifiers_that_are_none_are_refused_with_a900(keyword: str, value: str | None) -> None:
    refused = refusal(encoded(ct_slice(1, **{keyword: value})))
    assert refused.status == statuses.DATA_SET_DOES_NOT_MATCH_SOP_CLASS
    assert keyword in refused.why
    assert not value or value not in refused.why


@pytest.mark.parametrize("value", ["1.02.3", "1..2", "1.2."])
def test_uids_of_odd_form_are_accepted_with_a_warning(value: str) -> None:
    found = identify(encoded(ct_slice(1, SOPInstanceUID=value)), ExplicitVRLittleEndian)
    assert found.sop_instance_uid == value
    assert found.warnings == ("SOPInstanceUID is no valid UID (PS3.5 9.1)",)


@pytest.mark.parametrize("pad", ["\0", " "])
def test_padding_is_no_part_of_a_uid(pad: str) -> None:
    found = identify(encoded(ct_slice(1, SOPInstanceUID=f"1.2.3{pad}")), ExplicitVRLittleEndian)
    assert found.sop_instance_uid == "1.2.3"


def test_command_set_and_data_set_must_agree() -> None:
    found = identify(encoded(ct_slice(1)), ExplicitVRLittleEndian)
    check_agreement(found, found.sop_class_uid, found.sop_instance_uid)
    for class_uid, instance_uid in [(MR_IMAGE_STORAGE, found.sop_instance_uid), (found.sop_class_uid, "1.2")]:
        with pytest.raises(RefusedDataSet) as caught:
            check_agreement(found, class_uid, instance_uid)
        assert caught.value.status == statuses.DATA_SET_DOES_NOT_MATCH_SOP_CLASS


@pytest.mark.parametrize(
    "change",
    [
        {"PatientName": None, "PatientID": None},
        {"Modality": None},
        {"PatientBirthDate": "not a date"},
        {"PatientName": "a" * 300},
        {"SpecificCharacterSet": "ISO_IR 999"},
        {"SpecificCharacterSet": "\\nonsense"},
    ],
)
def test_other_faults_of_form_are_accepted(change: dict[str, Any]) -> None:
    identify(encoded(ct_slice(1, **change)), ExplicitVRLittleEndian)


# ------------------------------------------------------------------------ what decides how soon it is analysed

NO_TIME = dict.fromkeys(
    f"{what}{kind}" for what in ("Acquisition", "Content", "Series", "Study") for kind in ("Date", "Time")
)


def acquired(**changes: Any) -> float | None:
    """When a slice was acquired that says nothing of it but what is given."""
    return identify(encoded(ct_slice(1, **NO_TIME | changes)), ExplicitVRLittleEndian).acquired_at


def utc(text: str) -> float:
    return datetime.fromisoformat(text + "+00:00").timestamp()


@pytest.fixture
def in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("header", "when"),
    [
        ({"AcquisitionDateTime": "20240115123015.5"}, "2024-01-15T17:30:15.5"),
        ({"AcquisitionDateTime": "20240115123015.5+0100"}, "2024-01-15T11:30:15.5"),
        ({"AcquisitionDateTime": "20240115123015", "TimezoneOffsetFromUTC": "-0330"}, "2024-01-15T16:00:15"),
        ({"AcquisitionDateTime": "20240115123015+0100", "TimezoneOffsetFromUTC": "-0330"}, "2024-01-15T11:30:15"),
        ({"AcquisitionDate": "20240115", "AcquisitionTime": "123015.25"}, "2024-01-15T17:30:15.25"),
        ({"AcquisitionDate": "20240715", "AcquisitionTime": "1230"}, "2024-07-15T16:30:00"),
        ({"AcquisitionDate": "2024.01.15", "AcquisitionTime": "12:30:15"}, "2024-01-15T17:30:15"),
        ({"StudyDate": "20240115", "StudyTime": "235960", "TimezoneOffsetFromUTC": "+0000"}, "2024-01-15T23:59:59"),
        ({"SeriesDate": "20240115", "TimezoneOffsetFromUTC": "+0000"}, "2024-01-15T23:59:59.999999"),
        ({"AcquisitionDateTime": "20240115", "TimezoneOffsetFromUTC": "+0000"}, "2024-01-15T23:59:59.999999"),
        ({"StudyDate": "20240115", "StudyTime": "120000", "TimezoneOffsetFromUTC": "noon"}, "2024-01-15T17:00:00"),
    ],
)
@pytest.mark.usefixtures("in_new_york")
def test_the_time_of_acquisition_counts_in_the_zone_of_the_images_else_of_this_machine(
    header: dict[str, Any], when: str
) -> None:
    assert acquired(**header) == pytest.approx(utc(when), abs=1e-5)


def test_the_most_exact_attribute_that_is_there_decides() -> None:
    order = [*(f"{what}Date" for what in ("Acquisition", "Content", "Series", "Study"))]
    days = {keyword: f"2024011{number}" for number, keyword in enumerate(order, start=1)}
    for keyword in order:
        day = days[keyword]
        assert acquired(**days, TimezoneOffsetFromUTC="+0000") == pytest.approx(
            utc(f"{day[:4]}-{day[4:6]}-{day[6:]}T23:59:59.999999"), abs=1e-5
        )
        days[keyword] = ""
    assert acquired(**dict.fromkeys(order, ""), AcquisitionTime="120000") is None


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"AcquisitionDate": "yesterday"},
        {"AcquisitionDate": "20241341", "AcquisitionTime": "120000"},
        {"AcquisitionDate": "20240115", "AcquisitionTime": "noon"},
        {"AcquisitionDate": "20240115", "AcquisitionTime": "256199"},
        {"AcquisitionDate": "00010101", "AcquisitionTime": "000000"},
        {"AcquisitionDate": "99991231", "AcquisitionTime": "120000"},
        {"AcquisitionDateTime": "202401"},
        {"AcquisitionDateTime": "nonsense", "StudyDate": "20240115"},
        {"AcquisitionDateTime": "20240115123015", "TimezoneOffsetFromUTC": "+9900"},
    ],
)
def test_a_time_of_acquisition_that_cannot_be_is_none(header: dict[str, Any]) -> None:
    assert acquired(**header) is None


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_station_and_requested_priority_are_read_where_they_are(syntax: str) -> None:
    ds = ct_slice(1, StationName="CT_ER1", RequestedProcedurePriority="stat")
    found = identify(encoded(ds, syntax), syntax)
    assert (found.station_name, found.requested_priority) == ("CT_ER1", "STAT")
    inner = Dataset()
    inner.StationName, inner.RequestedProcedurePriority = "INNER", "STAT"
    ds = ct_slice(1, StationName="", RequestedProcedurePriority=None)
    ds.RequestAttributesSequence = Sequence([inner])
    found = identify(encoded(ds, syntax), syntax)
    assert (found.station_name, found.requested_priority) == ("", "")


# ---------------------------------------------------------------------------------- whether all of it came


@pytest.mark.parametrize("content", [b"", b"\0", b"no DICOM at all " * 50, b"\0" * 1000, b"\xff" * 1000])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_is_no_data_set_is_refused(content: bytes, syntax: str) -> None:
    assert refusal(content, syntax).status in (
        statuses.CANNOT_UNDERSTAND,
        statuses.DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
    )


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("make", [lambda: ct_slice(1), with_trailing_elements, structured_report])
def test_a_data_set_cut_anywhere_inside_an_element_is_refused(make: Callable[[], Dataset], syntax: str) -> None:
    ds = make()
    whole = encoded(ds, syntax)
    identify(whole, syntax)
    boundaries = _element_ends(ds, syntax)
    assert len(whole) in boundaries
    for length in range(len(whole)):
        if length not in boundaries:
            assert refusal(whole[:length], syntax)
    for length in boundaries - {len(whole)}:  # what goes with an image cannot be missing from one
        if "PixelData" in ds and length < len(whole) - 200:
            assert refusal(whole[:length], syntax)


def _element_ends(ds: Dataset, syntax: str) -> set[int]:
    ends, part = set(), Dataset()
    for element in ds:
        part.add(element)
        ends.add(len(encoded(part, syntax)))
    return ends


@pytest.mark.parametrize("short_by", [1, 2, 100, 511, 512])
def test_pixels_shorter_than_the_header_says_are_refused(short_by: int) -> None:
    ds = ct_slice(1)
    ds.PixelData = ds.PixelData[:-short_by]
    if len(ds.PixelData) % 2:
        ds.PixelData = ds.PixelData[:-1]
    refused = refusal(encoded(ds))
    assert refused.status == statuses.CANNOT_UNDERSTAND
    assert "shorter than the header says" in refused.why


def test_pixels_longer_than_the_header_says_are_kept() -> None:
    ds = ct_slice(1)
    ds.PixelData += b"\0" * 64
    identify(encoded(ds), ExplicitVRLittleEndian)


@pytest.mark.parametrize(
    ("change", "size"),
    [
        ({"NumberOfFrames": "3"}, 3 * 512),
        ({"SamplesPerPixel": 3, "BitsAllocated": 8}, 3 * 256),
        ({"SamplesPerPixel": 3, "BitsAllocated": 8, "PhotometricInterpretation": "YBR_FULL_422"}, 2 * 256),
        ({"BitsAllocated": 1}, 32),
        ({"BitsAllocated": 32}, 1024),
    ],
)
def test_the_size_of_pixels_follows_from_the_header(change: dict[str, Any], size: int) -> None:
    identify(encoded(ct_slice(1, **change, PixelData=b"\0" * size)), ExplicitVRLittleEndian)
    assert refusal(encoded(ct_slice(1, **change, PixelData=b"\0" * (size - 2))))


def test_an_image_without_pixels_is_refused_and_a_report_is_not() -> None:
    assert "before its pixel data" in refusal(encoded(ct_slice(1, PixelData=None))).why
    identify(encoded(structured_report()), ExplicitVRLittleEndian)


def test_compressed_pixels_are_followed_to_their_end() -> None:
    whole = compressed()
    assert identify(whole, JPEGLSLossless).warnings == ()
    identify(compressed(DataSetTrailingPadding=b"\0" * 20), JPEGLSLossless)
    for length in range(len(whole) - 640, len(whole)):
        assert refusal(whole[:length], JPEGLSLossless).status == statuses.CANNOT_UNDERSTAND


def test_a_fragment_that_points_past_the_end_is_refused() -> None:
    whole = compressed()
    place = whole.index(b"\xfe\xff\x00\xe0" + struct.pack("<I", 600)) + 4
    damaged = whole[:place] + struct.pack("<I", 0x7FFFFFFE) + whole[place + 4 :]
    assert refusal(damaged, JPEGLSLossless).status == statuses.CANNOT_UNDERSTAND


def test_a_header_is_read_wherever_it_crosses_what_is_read_at_once() -> None:
    for size in range(data_set._WINDOW - 700, data_set._WINDOW + 100, 2):
        image = ct_slice(1)
        image.add_new(0x00090010, "LO", "ICH_NODE TEST")
        image.add_new(0x00091000, "OB", bytes(size))
        found = identify(encoded(image), ExplicitVRLittleEndian)
        assert (found.patient_id, found.study_instance_uid) == (image.PatientID, image.StudyInstanceUID)


def test_of_a_value_without_end_only_the_beginning_is_kept() -> None:
    image = ct_slice(1)
    image.add_new(0x00081010, "UT", "CT" * 2_000_000)  # Station Name, as what may be so long
    found = identify(encoded(image), ExplicitVRLittleEndian)
    assert found.station_name == "CT" * (data_set._LONGEST_VALUE // 2)


def test_a_character_set_with_which_nothing_can_be_read_is_refused() -> None:
    image = ct_slice(1)
    whole = encoded(image)
    assert identify(whole, ExplicitVRLittleEndian).modality == "CT"
    with pytest.raises(RefusedDataSet) as refused:
        identify(whole.replace(b"ISO_IR 100", b"\0\0\0\0IR 100"), ExplicitVRLittleEndian)
    assert refused.value.status == statuses.CANNOT_UNDERSTAND


def test_an_icon_is_not_taken_for_the_image() -> None:
    ds = ct_slice(1)
    icon = Dataset()
    icon.Rows = icon.Columns = 4
    icon.BitsAllocated, icon.PixelRepresentation, icon.PixelData = 8, 0, b"\0" * 16
    ds.IconImageSequence = Sequence([icon])
    identify(encoded(ds), ExplicitVRLittleEndian)
    del ds.PixelData
    assert refusal(encoded(ds))


@pytest.mark.parametrize("sent", SYNTAXES)
@pytest.mark.parametrize("agreed", SYNTAXES)
def test_another_transfer_syntax_than_was_agreed_on_is_refused(sent: str, agreed: str) -> None:
    """pydicom reads most of it all the same; others who read the file would not."""
    whole = encoded(ct_slice(1), sent)
    if sent == agreed:
        assert identify(whole, agreed).sop_instance_uid == ct_slice(1).SOPInstanceUID
    else:
        assert refusal(whole, agreed)


@pytest.mark.parametrize("seed", range(20))
def test_damage_anywhere_never_ends_in_another_error(seed: int) -> None:
    chance = random.Random(seed)
    for make in (lambda: encoded(ct_slice(1)), lambda: encoded(structured_report()), compressed):
        content = bytearray(make())
        for _ in range(chance.randint(1, 20)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        with suppress(RefusedDataSet):
            identify(bytes(content), chance.choice([*SYNTAXES, JPEGLSLossless]))


# --------------------------------------------------------------------------------------------- real data


def test_every_real_object_is_whole_and_its_truncations_are_not(shared_data: Path) -> None:
    chance = random.Random(2)
    files = [
        path for folder in ("transfer-syntaxes", "not-head") for path in sorted((shared_data / folder).rglob("*.dcm"))
    ]
    looked = 0
    for path in files:
        try:
            syntax, content = split_file(path.read_bytes())
            identify(content, syntax)
        except RefusedDataSet:
            continue  # some are no DICOM files, or damaged on purpose
        looked += 1
        for _ in range(20):
            refusal(bytes(content[: chance.randrange(len(content))]), syntax)
    assert looked > 10


def test_a_real_slice_cut_at_two_hundred_places_is_never_taken_for_whole(shared_data: Path) -> None:
    path = min((shared_data / "ge-head-tilted").rglob("*.dcm"))
    syntax, content = split_file(path.read_bytes())
    identify(content, syntax)
    chance = random.Random(3)
    for length in (*range(0, 3000, 30), *(chance.randrange(len(content)) for _ in range(100))):
        refusal(bytes(content[:length]), syntax)
