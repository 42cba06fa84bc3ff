"""UIDs of result objects: the same identity always gives the same UID, so that a repeat is recognised as one."""

from typing import Final
from uuid import UUID, uuid5

from ich_node.records import ReportIdentity

_NAMESPACE: Final = UUID("e2ed5332-a288-40f4-8681-2826ba5554f1")


def result_sop_instance_uid(identity: ReportIdentity, kind: str, encoding: str) -> str:
    """Name one object: other content or another encoding of it never shares its UID."""
    return _uid(*_study_parts(identity), str(identity.revision), kind, encoding)


def result_series_instance_uid(identity: ReportIdentity, kind: str, patient_digest: str) -> str:
    """Name the series that all revisions of one kind of object share.

    A report under a corrected patient identity lies in a series of its own, since a series has one patient.
    """
    return _uid(*_study_parts(identity), "series", kind, patient_digest)


def tracking_uid(identity: ReportIdentity, hemorrhage_class: str) -> str:
    """Name the observation of one class in one study, the same in every revision."""
    return _uid(*_study_parts(identity), "tracking", hemorrhage_class)


def device_observer_uid(installation_uid: str) -> str:
    """Name this installation as the observer (PS3.16 TID 1004)."""
    return _uid(installation_uid, "device")


def device_serial_number(installation_uid: str) -> str:
    """Return a short serial number that people can compare, such as ``3F0D-4F5B-9C4E``."""
    digits = uuid5(_NAMESPACE, installation_uid).hex[:12].upper()
    return "-".join(digits[start : start + 4] for start in (0, 4, 8))


def _study_parts(identity: ReportIdentity) -> tuple[str, str]:
    return identity.installation_uid, identity.study_instance_uid


def _uid(*parts: str) -> str:
    # PS3.5 B.2: a UUID as a decimal number below the root 2.25
    return f"2.25.{uuid5(_NAMESPACE, '|'.join(parts)).int}"
