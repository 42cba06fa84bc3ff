"""How many instances of a series a PACS holds."""

from __future__ import annotations

from typing import Final

from pynetdicom.association import Association

from ich_node.association import Patience, associate
from ich_node.query_retrieve.asking import STUDY_ROOT_FIND, Asked, find, identifier, number_of_instances, text_of
from ich_node.records import Destination

SERIES_KEYS: Final = ("QueryRetrieveLevel", "StudyInstanceUID", "SeriesInstanceUID", "NumberOfSeriesRelatedInstances")
IMAGE_KEYS: Final = ("QueryRetrieveLevel", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def count_instances(
    destination: Destination, ae_title: str, study_instance_uid: str, series_instance_uid: str, patience: Patience,
    asked: Asked = lambda _identifier: None,
) -> int | None:  # fmt: skip
    """Ask how many instances a series has; None where the PACS does not know it.

    Asks at SERIES level; where the PACS leaves the number out, which is an optional key, its answers at IMAGE level are
    counted.

    Raises:
        DestinationUnavailable: no connection, an abort, or no complete answer in time.
        DestinationRefuses: it rejects the association, or answers no such query.
    """
    uids = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": series_instance_uid}
    with associate(destination, ae_title, [STUDY_ROOT_FIND], patience) as association:
        query = identifier(SERIES_KEYS, QueryRetrieveLevel="SERIES", **uids)
        found = find(association, query, asked)
        known = [one for one in found if text_of(one, "SeriesInstanceUID") == series_instance_uid]
        if not known:
            return None
        return max(map(number_of_instances, known)) or count_images(association, uids, asked) or None


def count_images(association: Association, uids: dict[str, str], asked: Asked) -> int:
    """Count the images of a series by its answers at IMAGE level.

    Args:
        uids: StudyInstanceUID and SeriesInstanceUID.

    Raises:
        DestinationUnavailable: an abort, or no complete answer in time.
        DestinationRefuses: it answers no such query.
    """
    query = identifier(IMAGE_KEYS, QueryRetrieveLevel="IMAGE", **uids)
    mine = ("", uids["SeriesInstanceUID"])
    found = find(association, query, asked)
    of_the_series = (one for one in found if text_of(one, "SeriesInstanceUID") in mine)
    return len({text_of(one, "SOPInstanceUID") for one in of_the_series} - {""})
