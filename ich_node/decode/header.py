"""What a header tells of a slice or frame, without patient data."""

import math
import re
from collections.abc import Iterator
from datetime import date
from typing import Any, Final

from pydicom import Dataset

from ich_node.decode.hounsfield import StoredValueMeaning
from ich_node.records import SliceFacts

_DESCRIPTIONS: Final = (
    "BodyPartExamined",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
)
# Words as scanners and schedulers write them in the commoner languages; a letter before a word makes it another word.
_HEAD: Final = re.compile(
    r"(?<![^\W\d_])(head(?!\s*-?\s*first)|brain|skull|crani|cr[aâ]ne|neuro|cerebr|cerveau|intracran|kopf|sch(ä|ae)del"
    r"|hirn|gehirn|cabe[zçc]a|enc[eé]f|cr[aá]n|t[eê]te(?![a-z])|testa(?![a-z])|hoofd|schedel|hersen|g[lł]ow|huvud)"
    r"|[頭头脳脑颅腦顱뇌]|두부|голов|мозг|череп",
    re.IGNORECASE,
)
_OTHER_PART: Final = re.compile(
    r"(?<![^\W\d_])(chest|thora|lung|pulmo|abd|pelvi|becken|whole[\s_-]?body|cardi|heart|coronar|liver|hepat|renal"
    r"|kidney|urogra|colon|aort|breast|extremit|shoulder|elbow|wrist|hand(?![a-z])|hip(?![a-z])|knee|ankle|foot(?![a-z])"
    r"|feet|leg(?![a-z])|arm(?![a-z])|femur|tibia|[ctl]?[\s_-]?spine|wirbel|lumbar|neck|hals(?![a-z])|cap(?![a-z])"
    r"|tap(?![a-z]))|[胸腹]|груд|живот",
    re.IGNORECASE,
)
_BONE: Final = re.compile(
    r"(?<![^\W\d_])(bone|bony|knochen|os(?![^\W\d_])|[oó]ss|[oó]se[oa]|hueso|skelet|knogle|ko[sś][tć])|骨|뼈|кост",
    re.IGNORECASE,
)
_AGE: Final = re.compile(r"(\d{1,3})\s*([DWMY]?)", re.IGNORECASE)
_UNITS_A_YEAR: Final = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0, "": 1.0}
_OLDEST_YEARS: Final = 120
_AGE_CAP_YEARS: Final = 90  # PS3.15 E.1: an age above it could identify a person
_IMAGE_DATES: Final = ("AcquisitionDate", "AcquisitionDateTime", "ContentDate", "StudyDate")


def frame_count(dataset: Dataset) -> int:
    """NumberOfFrames; 1 where it is absent."""
    return int(dataset.get("NumberOfFrames") or 1)


def facts_of_instance(dataset: Dataset) -> tuple[SliceFacts, ...]:
    """State the facts of every frame of an object: one for a classic CT image, one per frame for Enhanced CT.

    Frames get their position, orientation, spacing and type from the functional groups (PS3.3 C.7.6.16), their own
    before the shared ones.
    """
    if frame_count(dataset) == 1 and "PerFrameFunctionalGroupsSequence" not in dataset:
        return (_facts(dataset, (dataset,), None),)
    return tuple(_facts(dataset, _sources(dataset, index), index + 1) for index in range(frame_count(dataset)))


def stored_value_meaning(dataset: Dataset, frame: int | None) -> StoredValueMeaning:
    """State how the stored values of a frame become HU. Without rescale attributes they are HU already."""
    sources = (dataset,) if frame is None else _sources(dataset, frame - 1)
    slope, intercept = _number(sources, "RescaleSlope"), _number(sources, "RescaleIntercept")
    signed = bool(dataset.get("PixelRepresentation", 0))
    return StoredValueMeaning(
        rescale_slope=1.0 if slope is None else slope,
        rescale_intercept=0.0 if intercept is None else intercept,
        padding=_padding(dataset, signed),
        bits_stored=int(dataset.BitsStored),
        signed=signed,
    )


def _facts(dataset: Dataset, sources: tuple[Dataset, ...], frame: int | None) -> SliceFacts:
    text = " / ".join(_texts(dataset, sources))
    names_head = bool(_HEAD.search(text))
    position = _numbers(sources, "ImagePositionPatient", 3)
    orientation = _numbers(sources, "ImageOrientationPatient", 6)
    spacing = _numbers(sources, "PixelSpacing", 2)
    return SliceFacts(
        sop_instance_uid=str(dataset.SOPInstanceUID),
        frame=frame,
        sop_class_uid=str(dataset.SOPClassUID),
        modality=str(dataset.get("Modality") or ""),
        image_type=_image_type(sources),
        image_position_patient=(position[0], position[1], position[2]) if position else None,
        image_orientation_patient=(*orientation[:5], orientation[5]) if orientation else None,  # type: ignore[arg-type]  # six, checked by _numbers
        pixel_spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        slice_thickness_mm=_number(sources, "SliceThickness"),
        rows=_whole(dataset, "Rows") or 0,
        columns=_whole(dataset, "Columns") or 0,
        instance_number=_whole(dataset, "InstanceNumber"),
        convolution_kernel=_joined(_value(sources, "ConvolutionKernel")),
        names_head=names_head,
        names_other_body_part=not names_head and bool(_OTHER_PART.search(text)),
        tissue=None,
        series_number=_whole(dataset, "SeriesNumber"),
        rescale_type=_joined(_value(sources, "RescaleType")).upper(),
        contrast_agent=_contrast_agent(sources),
        patient_age_years=_age_years(dataset),
        names_bone=any(_BONE.search(text_of(dataset, keyword)) for keyword in ("SeriesDescription", "ProtocolName")),
        lossy=text_of(dataset, "LossyImageCompression") == "01",
        frame_of_reference_uid=text_of(dataset, "FrameOfReferenceUID"),
    )


def _sources(dataset: Dataset, index: int) -> tuple[Dataset, ...]:
    """Where to look for an attribute of frame ``index`` (from 0), most specific first."""
    groups = []
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if index < len(per_frame):
        groups.append(per_frame[index])
    groups.extend(list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1])
    return (*(macro for group in groups for macro in _macros(group)), *groups, dataset)


def _macros(group: Dataset) -> Iterator[Dataset]:
    """The single items of a functional group's macros: PlanePositionSequence, PixelMeasuresSequence, ..."""
    for element in group:
        if element.VR == "SQ" and element.value:
            yield element.value[0]


def _texts(dataset: Dataset, sources: tuple[Dataset, ...]) -> Iterator[str]:
    for keyword in _DESCRIPTIONS:
        yield str(dataset.get(keyword) or "")
    regions = _value(sources, "AnatomicRegionSequence")
    for region in regions or []:
        yield str(region.get("CodeMeaning") or "")


def _contrast_agent(sources: tuple[Dataset, ...]) -> str:
    """ContrastBolusAgent, or what ContrastBolusAgentSequence means (PS3.3 C.7.6.4, C.7.6.4b for Enhanced CT)."""
    if agent := _joined(_value(sources, "ContrastBolusAgent")):
        return agent
    agents = _value(sources, "ContrastBolusAgentSequence") or []
    return " ".join(text_of(agent, "CodeMeaning") or "agent without a name" for agent in agents)


def _age_years(dataset: Dataset) -> int | None:
    """Whole years from PatientAge, else from PatientBirthDate and the first date of the images; None where unknown."""
    age = _written_age_years(text_of(dataset, "PatientAge"))
    if age is None:
        age = _age_by_dates(dataset)
    return None if age is None else min(age, _AGE_CAP_YEARS)


def _written_age_years(text: str) -> int | None:
    """PatientAge (PS3.5 VR AS): 034Y; also 34Y and 34, as some scanners write it."""
    written = _AGE.fullmatch(text)
    if not written:
        return None
    years = int(int(written[1]) / _UNITS_A_YEAR[written[2].upper()])
    return years if years <= _OLDEST_YEARS else None


def _age_by_dates(dataset: Dataset) -> int | None:
    born = _date(text_of(dataset, "PatientBirthDate"))
    dates = (_date(text_of(dataset, keyword)) for keyword in _IMAGE_DATES)
    made = next((one for one in dates if one is not None), None)
    if born is None or made is None:
        return None
    years = made.year - born.year - ((made.month, made.day) < (born.month, born.day))
    return years if 0 <= years <= _OLDEST_YEARS else None


def _date(text: str) -> date | None:
    """A date (PS3.5 VR DA) or the date of a VR DT; the retired form 1950.01.31 too."""
    digits = text.replace(".", "").replace("-", "")[:8]
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return None


def text_of(dataset: Dataset, keyword: str) -> str:
    """Give an attribute as one text; empty where it is absent or not of its form."""
    return _joined(_value((dataset,), keyword))


def _joined(value: Any) -> str:
    """One text of one or several values: a Siemens kernel is written H31s\\3."""
    values = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value
    return " ".join(str(one).strip() for one in values if one is not None).strip()


def _image_type(sources: tuple[Dataset, ...]) -> tuple[str, ...]:
    """FrameType of a frame (CT Image Frame Type macro, PS3.3 C.8.15.3.2) or ImageType, in capitals."""
    value = _value(sources[:-1], "FrameType") or _value(sources, "ImageType") or ()
    parts = [value] if isinstance(value, str) else list(value)
    return tuple(str(part).strip().upper() for part in parts)


def _padding(dataset: Dataset, signed: bool) -> tuple[float, float] | None:
    first = _whole(dataset, "PixelPaddingValue")
    if first is None:
        return None
    last = _whole(dataset, "PixelPaddingRangeLimit")
    ends = [_as_stored(value, signed, dataset) for value in (first, first if last is None else last)]
    return min(ends), max(ends)


def _as_stored(value: int, signed: bool, dataset: Dataset) -> float:
    """A padding value written with VR US for signed pixels, or the other way round, means the same bits."""
    span = 1 << int(dataset.BitsAllocated)
    if signed and value >= span // 2:
        return float(value - span)
    if not signed and value < 0:
        return float(value + span)
    return float(value)


def _value(sources: tuple[Dataset, ...], keyword: str) -> Any:
    for source in sources:
        value = _converted(source, keyword)
        if value not in (None, ""):
            return value
    return None


def _converted(source: Dataset, keyword: str) -> Any:
    """An attribute whose text is not of its VR counts as missing: one bad number does not make a slice unreadable."""
    try:
        return source.get(keyword)
    except (ValueError, TypeError, ArithmeticError):
        return None


def _number(sources: tuple[Dataset, ...], keyword: str) -> float | None:
    numbers = _numbers(sources, keyword, 1)
    return numbers[0] if numbers else None


def _numbers(sources: tuple[Dataset, ...], keyword: str, count: int) -> tuple[float, ...] | None:
    value = _value(sources, keyword)
    values: list[Any] = [value] if isinstance(value, int | float | str) or value is None else list(value)
    try:
        numbers = tuple(float(one) for one in values)
    except (ValueError, TypeError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _whole(dataset: Dataset, keyword: str) -> int | None:
    number = _number((dataset,), keyword)
    return None if number is None else int(number)
