"""The values that flow from stage to stage, and the states they pass through.

Arrays are always (slices, rows, columns); lengths carry ``_mm``, times ``_s``, Hounsfield units ``_hu``.
Attribute names are DICOM keywords in snake_case.
"""

from ich_node.records.deliveries import Delivery, DeliveryObject, Destination
from ich_node.records.findings import ClassThresholds, ModelIdentity, SliceProbability, TriageFinding
from ich_node.records.images import (
    Completeness,
    Gap,
    HounsfieldSlice,
    HounsfieldSlices,
    PlaneScore,
    PlaneScores,
    ScoredInstance,
    SeriesContent,
    SliceFacts,
    TissueMeasure,
)
from ich_node.records.reception import ReceivedInstance, Reception, SeriesJob, StoredInstance
from ich_node.records.reports import ReportIdentity, ReportRequest, ResultObject, Step, StudyContext
from ich_node.records.states import (
    ANALYSED_SOP_CLASSES,
    CT_IMAGE_STORAGE,
    ENHANCED_CT_IMAGE_STORAGE,
    HEMORRHAGE_CLASSES,
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
    "LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE",
    "ClassThresholds",
    "Completeness",
    "Delivery",
    "DeliveryObject",
    "DeliveryState",
    "Destination",
    "Gap",
    "HounsfieldSlice",
    "HounsfieldSlices",
    "InstanceState",
    "ModelIdentity",
    "NotAnalysedReason",
    "PlaneScore",
    "PlaneScores",
    "Presence",
    "ReceivedInstance",
    "Reception",
    "ReportIdentity",
    "ReportRequest",
    "ResultObject",
    "ScoredInstance",
    "SeriesContent",
    "SeriesJob",
    "SeriesState",
    "SliceFacts",
    "SliceProbability",
    "Step",
    "StoredInstance",
    "StudyContext",
    "TissueMeasure",
    "Triage",
    "TriageFinding",
]
