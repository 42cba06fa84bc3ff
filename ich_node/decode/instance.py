"""One file → its slices in Hounsfield units. Runs in a child process; a pure function of the file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray
from pydicom import Dataset

from ich_node.decode.codec import repair_jpeg_2000_sign, stored_values
from ich_node.decode.file import damage_means, read_dataset, read_header
from ich_node.decode.header import facts_of_instance, frame_count, stored_value_meaning
from ich_node.decode.hounsfield import to_hounsfield
from ich_node.decode.identity import patient_marks, rejection_note, show_the_same_picture
from ich_node.decode.limits import DecodeLimits, check_image
from ich_node.decode.tissue import measure_tissue
from ich_node.errors import Ineligible, SeriesNotAnalysed, Unreadable
from ich_node.records import (
    HounsfieldSlice,
    HounsfieldSlices,
    InstanceState,
    NotAnalysedReason,
    PatientMarks,
    RejectionNote,
    SliceFacts,
)

MOST_PIXELS_AT_ONCE = 16 * 512 * 512
"""Multi-frame objects of more are decoded plane by plane (`read_plane`): they would not fit into memory together."""

_SEQUENCE_DELIMITER: Final = b"\xfe\xff\xdd\xe0"
_TAIL_BYTES: Final = 4096
"""Elements may follow PixelData, such as trailing padding."""

DeclineSlice = Callable[[SliceFacts], NotAnalysedReason | None]


@dataclass(frozen=True, slots=True, eq=False)
class DecodedInstance:
    """What became of one file."""

    state: InstanceState
    """DECODED, NOT_NEEDED (its header declines it; no pixel was decoded) or UNREADABLE."""
    facts: tuple[SliceFacts, ...] = ()
    """Of every frame whose header could be read, with the reason where one is not used."""
    slices: HounsfieldSlices = ()
    """The decoded ones; empty for an object of many frames, which is left for later."""
    reason: NotAnalysedReason | None = None
    detail: str = ""
    study_instance_uid: str = ""
    """Of the header; empty where it could not be read."""
    series_instance_uid: str = ""
    marks: PatientMarks = field(default_factory=PatientMarks)
    rejection: RejectionNote | None = None
    """What it takes back, where it is a rejection note."""
    other_picture: bool = False
    """The version before showed another picture under the same UID."""


def read_facts(path: Path, limits: DecodeLimits) -> tuple[SliceFacts, ...]:
    """Read the facts of every frame from the header; no pixel is touched.

    Raises:
        Unreadable: no DICOM file, or a damaged one.
    """
    return _facts(read_header(path, limits), limits)


def read_slices(path: Path, limits: DecodeLimits) -> HounsfieldSlices:
    """Decode every frame of a file into Hounsfield units, whatever it shows.

    Raises:
        Unreadable: the reason says whether the file, its size or its pixel data are at fault.
    """
    header = read_header(path, limits)
    return _decode(path, header, _facts(header, limits), limits)


def read_instance(
    path: Path, limits: DecodeLimits, decline: DeclineSlice, older: Path | None = None
) -> DecodedInstance:
    """Decode a file unless ``decline`` gives a reason against its header; expected faults become part of the answer.

    Args:
        older: the version of the object before this one; it is looked whether both show the same picture.
    """
    read = DecodedInstance(InstanceState.DECODED)
    try:
        header = read_header(path, limits)
        with damage_means(NotAnalysedReason.NOT_DICOM):
            study_uid, series_uid = _uids(header)
            read = replace(read, study_instance_uid=study_uid, series_instance_uid=series_uid,
                           marks=patient_marks(header), rejection=rejection_note(header))  # fmt: skip
        read = replace(read, facts=_facts(header, limits))
        read = replace(read, facts=_with_reasons(read.facts, decline))
        wanted = _wanted(read.facts)
        if len(wanted) == 1 or sum(one.rows * one.columns for one in wanted) <= MOST_PIXELS_AT_ONCE:
            slices = _decode_if_sound(path, header, wanted, limits)
            read = replace(read, slices=slices, facts=_with_measures(read.facts, slices))
        else:
            with damage_means(NotAnalysedReason.CANNOT_DECODE):
                check_image(header, limits)
        if older is not None and not show_the_same_picture(path, older, limits):
            read = replace(read, other_picture=True)
    except SeriesNotAnalysed as ended:
        return _ended(read, ended)
    return read


def _ended(read: DecodedInstance, ended: SeriesNotAnalysed) -> DecodedInstance:
    state = InstanceState.NOT_NEEDED if isinstance(ended, Ineligible) else InstanceState.UNREADABLE
    facts = read.facts
    if state is InstanceState.UNREADABLE:
        facts = tuple(replace(one, reason=one.reason or ended.reason) for one in facts)
    return replace(read, state=state, facts=facts, slices=(), reason=ended.reason, detail=ended.detail)


def read_header_only(path: Path, limits: DecodeLimits) -> DecodedInstance:
    """Say what the header tells of a file whose pixels cannot be had."""
    return read_instance(path, limits, lambda _: NotAnalysedReason.CANNOT_DECODE)


def _uids(header: Dataset) -> tuple[str, str]:
    with damage_means(NotAnalysedReason.NOT_DICOM):
        return str(header.get("StudyInstanceUID") or ""), str(header.get("SeriesInstanceUID") or "")


def _facts(header: Dataset, limits: DecodeLimits) -> tuple[SliceFacts, ...]:
    with damage_means(NotAnalysedReason.NOT_DICOM):
        frames = frame_count(header)
        if frames > limits.max_frames:
            raise Unreadable(NotAnalysedReason.TOO_LARGE, f"{frames} frames")
        return facts_of_instance(header)


def _with_reasons(facts: tuple[SliceFacts, ...], decline: DeclineSlice) -> tuple[SliceFacts, ...]:
    return tuple(replace(one, reason=decline(one)) for one in facts)


def _wanted(facts: tuple[SliceFacts, ...]) -> tuple[SliceFacts, ...]:
    wanted = tuple(one for one in facts if one.reason is None)
    if not wanted:
        raise Ineligible(next(one.reason for one in facts if one.reason))
    return wanted


def _decode_if_sound(
    path: Path, header: Dataset, wanted: Sequence[SliceFacts], limits: DecodeLimits
) -> HounsfieldSlices:
    """Decode frames together; none where one of many is broken: each is then read by itself, and costs only itself."""
    try:
        return _decode(path, header, wanted, limits)
    except Unreadable as error:
        single = frame_count(header) == 1
        if single or error.reason is not NotAnalysedReason.CANNOT_DECODE or not _is_whole(path, header):
            raise
        return ()


def _is_whole(path: Path, header: Dataset) -> bool:
    """Tell whether encapsulated pixel data end as they should (PS3.5 A.4): a file that was cut off is not analysed."""
    encapsulated = bool(header.file_meta.TransferSyntaxUID.is_encapsulated)
    return encapsulated and _SEQUENCE_DELIMITER in path.read_bytes()[-_TAIL_BYTES:]


def _decode(path: Path, header: Dataset, wanted: Sequence[SliceFacts], limits: DecodeLimits) -> HounsfieldSlices:
    with damage_means(NotAnalysedReason.CANNOT_DECODE):
        check_image(header, limits)
    dataset = read_dataset(path)
    with damage_means(NotAnalysedReason.CANNOT_DECODE):
        if "PixelData" not in dataset:
            raise Unreadable(NotAnalysedReason.NO_PIXEL_DATA, "no PixelData, or the file ends within it")
        repairs = repair_jpeg_2000_sign(dataset)
        values = stored_values(dataset, [(one.frame or 1) - 1 for one in wanted])
        return tuple(_slice(dataset, one, stored, repairs) for one, stored in zip(wanted, values, strict=True))


def _slice(dataset: Dataset, facts: SliceFacts, stored: NDArray[Any], repairs: tuple[str, ...]) -> HounsfieldSlice:
    hu, more_repairs = to_hounsfield(stored, stored_value_meaning(dataset, facts.frame))
    return HounsfieldSlice(replace(facts, tissue=measure_tissue(hu), repairs=repairs + more_repairs), hu)


def _with_measures(facts: tuple[SliceFacts, ...], slices: HounsfieldSlices) -> tuple[SliceFacts, ...]:
    measured = {one.facts.frame: one.facts for one in slices}
    return tuple(measured.get(one.frame, one) for one in facts)
