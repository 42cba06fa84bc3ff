"""The values that flow from stage to stage, and the states they pass through.

Arrays are always (slices, rows, columns); lengths carry ``_mm``, times ``_s``, Hounsfield units ``_hu``.
Attribute names are DICOM keywords in snake_case.
"""

from ich_node.records.deliveries import Delivery, DeliveryObject, Destination
from ich_node.records.findings import (
    ClassThresholds,
    ModelIdentity,
    OtherSeriesFinding,
    SliceProbability,
    TriageFinding,
)
from ich_node.records.images import (
    Completeness,
    Gap,
    HounsfieldSlice,
    HounsfieldSlices,
    PlaneMember,
    PlaneScore,
    PlaneScores,
    ScoredInstance,
    SeriesContent,
    SliceFacts,
    SliceKey,
    TissueMeasure,
)
from ich_node.records.reception import (
    PatientMarks,
    ReceivedInstance,
    Reception,
    RejectionNote,
    SeriesJob,
    StoredInstance,
)
from ich_node.records.reports import (
    ReportIdentity,
    ReportReference,
    ReportRequest,
    ResultObject,
    Step,
    StudyContext,
)
from ich_node.records.rules import EligibilityRules
from ich_node.records.states import (
    ANALYSED_SOP_CLASSES,
    CT_IMAGE_STORAGE,
    ENHANCED_CT_IMAGE_STORAGE,
    HEMORRHAGE_CLASSES,
    KEY_OBJECT_SELECTION_STORAGE,
    LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE,
    DeliveryState,
    InstanceState,
    NotAnalysedReason,
    Presence,
    SeriesState,
    Triage,
)

__all__ = [
    "ANALYSED_SOP_CLASSES",
    "CT_IMAGE_STORAGE",
    "ENHANCED_CT_IMAGE_STORAGE",
    "HEMORRHAGE_CLASSES",
    "KEY_OBJECT_SELECTION_STORAGE",
    "LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE",
    "ClassThresholds",
    "Completeness",
    "Delivery",
    "DeliveryObject",
    "DeliveryState",
    "Destination",
    "EligibilityRules",
    "Gap",
    "HounsfieldSlice",
    "HounsfieldSlices",
    "InstanceState",
    "ModelIdentity",
    "NotAnalysedReason",
    "OtherSeriesFinding",
    "PatientMarks",
    "PlaneMember",
    "PlaneScore",
    "PlaneScores",
    "Presence",
    "ReceivedInstance",
    "Reception",
    "RejectionNote",
    "ReportIdentity",
    "ReportReference",
    "ReportRequest",
    "ResultObject",
    "ScoredInstance",
    "SeriesContent",
    "SeriesJob",
    "SeriesState",
    "SliceFacts",
    "SliceKey",
    "SliceProbability",
    "Step",
    "StoredInstance",
    "StudyContext",
    "TissueMeasure",
    "Triage",
    "TriageFinding",
]
