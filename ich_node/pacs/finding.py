"""Answer a C-FIND of the Study Root model from the files of a folder (PS3.4 C.6.2)."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydicom import Dataset, dcmread

STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
_READ: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality", "InstanceNumber")
_UNIQUE_KEYS: Final = {
    "SERIES": ("StudyInstanceUID",),
    "IMAGE": ("StudyInstanceUID", "SeriesInstanceUID"),
}
"""Keys that a query of a level must give one value of (PS3.4 C.4.1.2.1)."""


def is_answerable(identifier: Dataset) -> bool:
    """Say whether this is a query at SERIES or IMAGE level with the unique keys above it."""
    needed = _UNIQUE_KEYS.get(str(identifier.get("QueryRetrieveLevel")))
    return needed is not None and all(isinstance(identifier.get(key), str) and identifier.get(key) for key in needed)


def find_matches(directory: Path, identifier: Dataset, *, count_instances: bool) -> Iterator[Dataset]:
    """Give one answer for each series or image that matches; keys that are not known here stay empty."""
    study_folder = directory / Path(identifier.StudyInstanceUID).name
    headers = [dcmread(path, specific_tags=list(_READ), stop_before_pixels=True) for path in study_folder.glob("*.dcm")]
    matching = [header for header in headers if _matches(header, identifier, "SeriesInstanceUID")]
    if identifier.QueryRetrieveLevel == "IMAGE":
        for header in matching:
            if _matches(header, identifier, "SOPInstanceUID"):
                yield _answer(identifier, header)
        return
    by_series = defaultdict(list)
    for header in matching:
        by_series[header.SeriesInstanceUID].append(header)
    for instances in by_series.values():
        first = instances[0]
        first.NumberOfSeriesRelatedInstances = len(instances) if count_instances else None
        yield _answer(identifier, first)


def _matches(header: Dataset, identifier: Dataset, keyword: str) -> bool:
    """Match one UID, a list of them, or any where none is given (PS3.4 C.2.2.2)."""
    wanted = identifier.get(keyword)
    if not wanted:
        return True
    return header.get(keyword) in ([wanted] if isinstance(wanted, str) else list(wanted))


def _answer(identifier: Dataset, found: Dataset) -> Dataset:
    answer = Dataset()
    for element in identifier:
        setattr(answer, element.keyword, found.get(element.keyword))
    answer.QueryRetrieveLevel = identifier.QueryRetrieveLevel
    return answer
