"""One DICOM file → a slice for a shard, in codes of Hounsfield units."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydicom import Dataset

from ich_node.decode import DecodeLimits, read_slices
from ich_node.decode.file import damage_means, read_header
from ich_node.decode.header import facts_of_instance, frame_count, text_of
from ich_node.eligibility import slice_ineligibility
from ich_node.errors import Unreadable
from ich_node.records import HounsfieldSlice, NotAnalysedReason, SliceFacts
from ich_node.slice_position import slice_position_mm
from ich_node.training.hu_code import encode_hu
from ich_node.training.prepare.entries import as_file
from ich_node.training.prepare.lot import Item, ReadSlice
from ich_node.training.prepare.picture import brain_window, perceptual_hash
from ich_node.training.prepare.square import mean_spacing_mm, spacing_after, to_square_hu

DEFAULT_SIDE_PX: Final = 512


@dataclass(frozen=True, slots=True)
class DicomReader:
    """Read single-frame CT images of a folder or zip archive."""

    place: Path
    side_px: int = DEFAULT_SIDE_PX
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    eligible_only: bool = False
    """Leave out what the node would not analyse by its header: localizers, other planes, contrast, MR ..."""

    def read(self, item: Item) -> tuple[ReadSlice, ...]:
        """Decode one file.

        Raises:
            Unreadable: it is no CT image of one frame that can be decoded, or not one that the node analyses.
        """
        with as_file(self.place, item.at) as path:
            header = read_header(path, self.limits)
            facts = _facts_of_single_frame(header)
            if self.eligible_only and (reason := slice_ineligibility(facts)) is not None:
                raise Unreadable(reason)
            (one,) = read_slices(path, self.limits)
        return (_slice(item, header, one, self.side_px),)

    def settings(self) -> str:
        return f"dicom {self.side_px}" + (" eligible" if self.eligible_only else "")


def _facts_of_single_frame(header: Dataset) -> SliceFacts:
    with damage_means(NotAnalysedReason.NOT_DICOM):
        frames = frame_count(header)
        facts = facts_of_instance(header)
    if frames > 1:
        raise Unreadable(NotAnalysedReason.CANNOT_DECODE, f"{frames} frames in one object; split it into single images")
    return facts[0]


def _slice(item: Item, header: Dataset, one: HounsfieldSlice, side_px: int) -> ReadSlice:
    spacing = item.spacing_mm if item.spacing_mm is not None else mean_spacing_mm(one.facts.pixel_spacing_mm)
    pixels = encode_hu(to_square_hu(one.hu, side_px))
    position = item.position_mm if item.position_mm is not None else slice_position_mm(one.facts)
    return ReadSlice(
        image_id=item.image_id,
        labels=item.labels,
        pixels=pixels,
        perceptual_hash=perceptual_hash(brain_window(pixels)),
        patient_id=text_of(header, "PatientID") if item.patient_id is None else item.patient_id,
        study=_study(header) if item.study is None else item.study,
        position_mm=None if position is None else round(position, 4),
        spacing_mm=spacing_after(spacing, one.hu.shape, side_px),
        lesion_mm2=item.lesion_mm2,
        repairs=one.facts.repairs,
    )


def _study(header: Dataset) -> str:
    """What forms one series; de-identified archives do not always keep its UID alone unique."""
    return f"{text_of(header, 'StudyInstanceUID')}/{text_of(header, 'SeriesInstanceUID')}"
