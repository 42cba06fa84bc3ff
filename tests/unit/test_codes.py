"""Codes are well-formed, and each scheme that is used is declared."""

from io import BytesIO

import pydicom
import pytest
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes as dicom_codes

from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.report import codes
from ich_node.report.structured_report import build_reports
from tests.ct_series import headers, make_request, positive

CONCEPTS = {name: value for name, value in vars(codes).items() if isinstance(value, CodedConcept)}
SNOMED_CODES = sorted({concept.value for concept in CONCEPTS.values() if concept.scheme_designator == "SCT"})

_MULTIPLY = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 2, 3, 4, 0, 6, 7, 8, 9, 5),
    (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
    (3, 4, 0, 1, 2, 8, 9, 5, 6, 7),
    (4, 0, 1, 2, 3, 9, 5, 6, 7, 8),
    (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
    (6, 5, 9, 8, 7, 1, 0, 4, 3, 2),
    (7, 6, 5, 9, 8, 2, 1, 0, 4, 3),
    (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
    (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
)
_FIRST_PERMUTATION = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def passes_verhoeff(code: str) -> bool:
    """Check the last digit as SNOMED CT's identifiers define it (Verhoeff's dihedral check)."""
    check = 0
    for position, digit in enumerate(reversed(code)):
        value = int(digit)
        for _ in range(position % 8):
            value = _FIRST_PERMUTATION[value]
        check = _MULTIPLY[check][value]
    return check == 0


def concepts_in(dataset: pydicom.Dataset) -> list[tuple[str, str, str]]:
    """Return value, scheme and meaning of every code anywhere in a data set."""
    return [
        (str(item.CodeValue), str(item.CodingSchemeDesignator), str(item.CodeMeaning))
        for element in dataset.iterall()
        if element.VR == "SQ"
        for item in element.value
        if "CodeValue" in item
    ]


@pytest.fixture(scope="module")
def report() -> pydicom.Dataset:
    evidence = headers(12)
    return pydicom.dcmread(BytesIO(build_reports(make_request(evidence, positive(evidence)))[0].part10))


@pytest.mark.parametrize("code", SNOMED_CODES)
def test_a_snomed_code_has_a_valid_check_digit(code: str) -> None:
    assert passes_verhoeff(code)


@pytest.mark.parametrize("code", ["83329005", "262052002", "274110009", "95457006", "396533000", "1386001"])
def test_a_snomed_code_with_a_wrong_check_digit_is_found(code: str) -> None:
    assert not passes_verhoeff(code)


def test_every_snomed_code_of_a_report_has_a_valid_check_digit(report: pydicom.Dataset) -> None:
    written = {value for value, scheme, _ in concepts_in(report) if scheme == "SCT"}
    assert len(written) >= 10
    assert all(passes_verhoeff(value) for value in written)


def test_every_scheme_of_a_report_is_declared(report: pydicom.Dataset) -> None:
    declared = {item.CodingSchemeDesignator for item in report.CodingSchemeIdentificationSequence}
    assert {scheme for _, scheme, _ in concepts_in(report)} <= declared


def test_the_private_scheme_names_its_version_and_its_owner() -> None:
    private = next(item for item in codes.coding_schemes() if item.CodingSchemeDesignator == codes.PRIVATE_SCHEME)
    assert private.CodingSchemeName
    assert private.CodingSchemeVersion
    assert private.CodingSchemeResponsibleOrganization
    assert codes.PRIVATE_SCHEME.startswith("99")


@pytest.mark.parametrize(("name", "concept"), CONCEPTS.items())
def test_a_code_fits_its_value_representation(name: str, concept: CodedConcept) -> None:
    assert len(concept.value) <= 16
    assert len(concept.scheme_designator) <= 16
    assert len(concept.meaning) <= 64


def test_every_hemorrhage_class_has_a_concept_and_a_site_of_its_own() -> None:
    assert tuple(codes.FINDINGS) == tuple(codes.FINDING_SITES) == HEMORRHAGE_CLASSES
    assert len({concept.value for concept in codes.FINDINGS.values()}) == len(HEMORRHAGE_CLASSES)


@pytest.mark.parametrize(
    ("concept", "keyword"),
    [
        (codes.CERTAINTY_OF_FINDING, "CertaintyOfFinding"),
        (codes.PROCESSING_SUMMARY, "CADProcessingAndFindingsSummary"),
        (codes.ALL_SUCCEEDED_WITHOUT_FINDINGS, "AllAlgorithmsSucceededWithoutFindings"),
        (codes.ALL_SUCCEEDED_WITH_FINDINGS, "AllAlgorithmsSucceededWithFindings"),
        (codes.SOME_SUCCEEDED_WITHOUT_FINDINGS, "NotAllAlgorithmsSucceededWithoutFindings"),
        (codes.SOME_SUCCEEDED_WITH_FINDINGS, "NotAllAlgorithmsSucceededWithFindings"),
        (codes.NONE_SUCCEEDED, "NoAlgorithmsSucceededWithoutFindings"),
        (codes.IMAGING_MEASUREMENT_REPORT, "ImagingMeasurementReport"),
        (codes.BEST_ILLUSTRATION, "BestIllustrationOfFinding"),
        (codes.CONCLUSION, "Conclusion"),
        (codes.DEVICE, "Device"),
        (codes.IMAGE_LIBRARY, "ImageLibrary"),
        (codes.IMAGE_LIBRARY_GROUP, "ImageLibraryGroup"),
        (codes.ARTIFICIAL_INTELLIGENCE, "ArtificialIntelligence"),
    ],
)
def test_a_dicom_code_has_the_value_and_meaning_of_the_standard(concept: CodedConcept, keyword: str) -> None:
    standard = getattr(dicom_codes.DCM, keyword)
    assert (concept.value, concept.meaning.lower()) == (standard.value, standard.meaning.lower())
