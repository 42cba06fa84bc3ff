"""Every coded concept that the node writes, and the coding schemes they come from.

Meanings are written out and never looked up by value: one SNOMED CT code may stand in the DICOM dictionary with several
meanings. ``Absent`` is 272519000, the one of DICOM's context group 240 (PS3.16).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept

PRIVATE_SCHEME: Final = "99ICHNODE"
"""The "99" marks a private scheme (PS3.16 section 8)."""
PRIVATE_SCHEME_VERSION: Final = "3"
"""Raised whenever a private code is added or changes its meaning."""

# ------------------------------------------------------------------------------------ findings and sites

ANY_HEMORRHAGE: Final = CodedConcept("1386000", "SCT", "Intracranial hemorrhage")
EPIDURAL_HEMORRHAGE: Final = CodedConcept("82999001", "SCT", "Epidural intracranial hemorrhage")
INTRAPARENCHYMAL_HEMORRHAGE: Final = CodedConcept("274100004", "SCT", "Cerebral hemorrhage")
INTRAVENTRICULAR_HEMORRHAGE: Final = CodedConcept("IVH", PRIVATE_SCHEME, "Intraventricular hemorrhage")
"""Private until a SNOMED CT browser has confirmed the public code."""
SUBARACHNOID_HEMORRHAGE: Final = CodedConcept("21454007", "SCT", "Subarachnoid hemorrhage")
SUBDURAL_HEMORRHAGE: Final = CodedConcept("35486000", "SCT", "Subdural hemorrhage")

INTRACRANIAL: Final = CodedConcept("1101003", "SCT", "Intracranial")
BRAIN: Final = CodedConcept("12738006", "SCT", "Brain")
BRAIN_VENTRICLE: Final = CodedConcept("35764002", "SCT", "Brain ventricle")
CRANIAL_SUBARACHNOID_SPACE: Final = CodedConcept("33930006", "SCT", "Cranial subarachnoid space")

FINDINGS: Final[Mapping[str, CodedConcept]] = MappingProxyType(
    {
        "any": ANY_HEMORRHAGE,
        "epidural": EPIDURAL_HEMORRHAGE,
        "intraparenchymal": INTRAPARENCHYMAL_HEMORRHAGE,
        "intraventricular": INTRAVENTRICULAR_HEMORRHAGE,
        "subarachnoid": SUBARACHNOID_HEMORRHAGE,
        "subdural": SUBDURAL_HEMORRHAGE,
    }
)
"""The concept of each hemorrhage class."""

FINDING_SITES: Final[Mapping[str, CodedConcept]] = MappingProxyType(
    {
        "any": INTRACRANIAL,
        "epidural": INTRACRANIAL,
        "intraparenchymal": BRAIN,
        "intraventricular": BRAIN_VENTRICLE,
        "subarachnoid": CRANIAL_SUBARACHNOID_SPACE,
        "subdural": INTRACRANIAL,
    }
)
"""Where each hemorrhage class lies; the nearest site that DICOM's own context groups list."""

# -------------------------------------------------------------------------------------- values and units

PRESENT: Final = CodedConcept("52101004", "SCT", "Present")
ABSENT: Final = CodedConcept("272519000", "SCT", "Absent")
UNDETERMINED: Final = CodedConcept("373068000", "SCT", "Undetermined")
INDETERMINATE: Final = CodedConcept("indeterminate", PRIVATE_SCHEME, "Indeterminate")

CERTAINTY_OF_FINDING: Final = CodedConcept("111012", "DCM", "Certainty of Finding")
PERCENT: Final = CodedConcept("%", "UCUM", "Percent")

# ------------------------------------------------------------------------------------- status and triage

PROCESSING_SUMMARY: Final = CodedConcept("111017", "DCM", "CAD Processing and Findings Summary")
ALL_SUCCEEDED_WITHOUT_FINDINGS: Final = CodedConcept("111241", "DCM", "All algorithms succeeded; without findings")
ALL_SUCCEEDED_WITH_FINDINGS: Final = CodedConcept("111242", "DCM", "All algorithms succeeded; with findings")
SOME_SUCCEEDED_WITHOUT_FINDINGS: Final = CodedConcept("111243", "DCM", "Not all algorithms succeeded; without findings")
SOME_SUCCEEDED_WITH_FINDINGS: Final = CodedConcept("111244", "DCM", "Not all algorithms succeeded; with findings")
NONE_SUCCEEDED: Final = CodedConcept("111245", "DCM", "No algorithms succeeded; without findings")

TRIAGE_CATEGORY: Final = CodedConcept("triage-category", PRIVATE_SCHEME, "AI triage category")
ACTIONABLE_CATEGORY_1: Final = CodedConcept("RID49480", "RADLEX", "ACR Category 1 Actionable Finding")
NO_FINDING: Final = CodedConcept("no-finding", PRIVATE_SCHEME, "No finding; hemorrhage not excluded")
NOT_ANALYSED: Final = CodedConcept("not-analysed", PRIVATE_SCHEME, "Not analysed; no result")
WITHDRAWN: Final = CodedConcept("withdrawn", PRIVATE_SCHEME, "Earlier result withdrawn; no result")

# ----------------------------------------------------------------------------------- document and images

IMAGING_MEASUREMENT_REPORT: Final = CodedConcept("126000", "DCM", "Imaging Measurement Report")
CT_PROCEDURE: Final = CodedConcept("25045-6", "LN", "CT unspecified body region")
"""The only CT code of context group 100; a head CT code of LOINC is none of its members."""
ENGLISH: Final = CodedConcept("en-US", "RFC5646", "English (United States)")
DEVICE: Final = CodedConcept("121007", "DCM", "Device")
ARTIFICIAL_INTELLIGENCE: Final = CodedConcept("123110", "DCM", "Artificial Intelligence")

QUALITATIVE_EVALUATIONS: Final = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
CONCLUSION: Final = CodedConcept("121077", "DCM", "Conclusion")
PROCESSING_STEP: Final = CodedConcept("processing-step", PRIVATE_SCHEME, "Processing step")

IMAGE_LIBRARY: Final = CodedConcept("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP: Final = CodedConcept("126200", "DCM", "Image Library Group")
SOURCE: Final = CodedConcept("260753009", "SCT", "Source")
BEST_ILLUSTRATION: Final = CodedConcept("121080", "DCM", "Best illustration of finding")

OF_INTEREST: Final = CodedConcept("113000", "DCM", "Of Interest")
KEY_OBJECT_DESCRIPTION: Final = CodedConcept("113012", "DCM", "Key Object Description")
SOURCE_IMAGE: Final = CodedConcept("121322", "DCM", "Source image for image processing operation")
REPLACED: Final = CodedConcept("replaced", PRIVATE_SCHEME, "Object of an earlier revision that this one replaces")
"""No code of PS3.16 CID 7201 says so."""


def coding_schemes() -> list[CodingSchemeIdentificationItem]:
    """Name the schemes of all concepts above, the private one with its owner (PS3.3 C.12.1.1.15)."""
    registered = (
        ("DCM", "DICOM Controlled Terminology", "1.2.840.10008.2.16.4"),
        ("SCT", "SNOMED CT", "2.16.840.1.113883.6.96"),
        ("UCUM", "Unified Code for Units of Measure", "2.16.840.1.113883.6.8"),
        ("LN", "LOINC", "2.16.840.1.113883.6.1"),
        ("RADLEX", "RadLex", "2.16.840.1.113883.6.256"),
        ("UMLS", "Unified Medical Language System", "2.16.840.1.113883.6.86"),
        ("RFC5646", "Tags for Identifying Languages", "2.16.840.1.113883.6.316"),
    )
    private = CodingSchemeIdentificationItem(
        PRIVATE_SCHEME,
        name="ich-node private codes",
        version=PRIVATE_SCHEME_VERSION,
        responsible_organization="ich-node",
    )
    return [
        *(CodingSchemeIdentificationItem(key, name=name, registry="HL7", uid=uid) for key, name, uid in registered),
        private,
    ]
