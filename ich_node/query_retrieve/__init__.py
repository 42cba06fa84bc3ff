"""Query/Retrieve SCU (PS3.4 Annex C): what a PACS holds, and that it sends it.

``asking`` what all queries share, ``counting`` images of a series, ``earlier_studies`` of a patient, ``listing`` the CT
of a day, ``moving`` one series to a storage SCP.
"""

from ich_node.query_retrieve.asking import QUERY_SYNTAX, STUDY_ROOT_FIND, Asked
from ich_node.query_retrieve.counting import IMAGE_KEYS, SERIES_KEYS, count_instances
from ich_node.query_retrieve.earlier_studies import (
    STUDY_KEYS,
    StudyOfPatient,
    find_earlier_studies,
    read_study_of_patient,
)
from ich_node.query_retrieve.listing import LISTED_SERIES_KEYS, LISTED_STUDY_KEYS, DayOfPacs, WantedSeries, list_day
from ich_node.query_retrieve.moving import MOVE_KEYS, STUDY_ROOT_MOVE, MoveOutcome, move_series

__all__ = [
    "IMAGE_KEYS",
    "LISTED_SERIES_KEYS",
    "LISTED_STUDY_KEYS",
    "MOVE_KEYS",
    "QUERY_SYNTAX",
    "SERIES_KEYS",
    "STUDY_KEYS",
    "STUDY_ROOT_FIND",
    "STUDY_ROOT_MOVE",
    "Asked",
    "DayOfPacs",
    "MoveOutcome",
    "StudyOfPatient",
    "WantedSeries",
    "count_instances",
    "find_earlier_studies",
    "list_day",
    "move_series",
    "read_study_of_patient",
]
