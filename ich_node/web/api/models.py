"""What the API answers, and what it is told: every field with its type and its limits."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ich_node.job_queue.feedback import LONGEST_NOTE, MOST_SLICES_SAID
from ich_node.queries import LONGEST_SEARCH, PAGE, Order, Shown
from ich_node.records import AlertState, DeliveryState, Presence, SeriesState, Triage
from ich_node.web.api.programs import LONGEST_PERSON

MOST_STUDIES: Final = 200
MOST_FEEDBACK: Final = 200
MOST_ROWS: Final = 1000
"""Deliveries, alerts and moments of a study, the newest."""
MOST_SLICES: Final = 10_000

HemorrhageClass = Literal["any", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural"]
CLASSES: Final[tuple[HemorrhageClass, ...]] = get_args(HemorrhageClass)
Uid = Annotated[str, Field(description="as it was received")]
Probability = Annotated[float, Field(json_schema_extra={"minimum": 0, "maximum": 1})]
"""Described, and not looked at again: an odd value is no reason for no answer."""
Moment = Annotated[datetime, Field(description="UTC")]


def moment(at: float) -> datetime:
    """Give a time of the database as the API writes it."""
    return datetime.fromtimestamp(at, UTC)


def moment_or_none(at: float | None) -> datetime | None:
    """Give a time of the database as the API writes it, where there is one."""
    return None if at is None else moment(at)


class StudyState(StrEnum):
    """Where a study stands, in one word."""

    POSITIVE = "positive"
    INDETERMINATE = "indeterminate"
    NEGATIVE = "negative"
    IN_PROGRESS = "in-progress"
    NOT_ANALYSED = "not-analysed"
    """No result: that is no negative one."""
    WITHDRAWN = "withdrawn"


class Patient(BaseModel):
    """Whose study it is, as the images say."""

    name: str
    patient_id: str
    birth_date: str = Field(description="YYYYMMDD, or empty")
    sex: str
    accession_number: str
    study_description: str
    study_date: str = Field(description="YYYYMMDD, or empty")
    study_time: str = Field(description="HHMMSS of the scanner's clock, or empty")


class ClassProbability(BaseModel):
    """One class of hemorrhage, and its probability."""

    name: HemorrhageClass
    probability: Probability


class Study(BaseModel):
    """A line of the worklist."""

    study_instance_uid: Uid
    revision: int = Field(ge=0)
    state: StudyState
    in_words: str = Field(description="the answer, or why there is none")
    test_model: bool = Field(description="the model is not trained: its answer is for tests alone")
    probability: Probability | None = Field(description="of any hemorrhage")
    subtypes: list[ClassProbability] = Field(description="those that are present, the most probable first")
    incomplete: bool
    old: bool
    station_name: str
    calling_ae_title: str
    slices: int = Field(ge=0)
    received_at: Moment
    last_received_at: Moment
    delivery: str
    alert: str
    patient: Patient | None = Field(description="null for a viewer's token")
    viewer_url: str | None = Field(description="in the site's viewer; null for a viewer's token")


class StudyList(BaseModel):
    """Some studies, and where to go on."""

    studies: list[Study] = Field(max_length=MOST_STUDIES)
    next_after: str | None = Field(description="for the next page; null where this is the last")


class Series(BaseModel):
    """One series of a study."""

    series_instance_uid: Uid
    number: int | None
    modality: str
    state: SeriesState
    why: str
    triage: Triage | None
    is_basis: bool = Field(description="the answer of the study rests on it")
    slices: int
    unreadable: int
    planes: int
    expected: int | None
    complete: bool | None
    attempts: int


class Delivery(BaseModel):
    """One object on its way to one destination."""

    destination: str
    what: str
    revision: int
    state: DeliveryState
    attempts: int
    sop_instance_uid: Uid | None
    created_at: Moment
    finished_at: Moment | None
    error: str | None = Field(description="null but for an operator's token")


class Alert(BaseModel):
    """One alert through one channel."""

    identifier: str
    channel: str
    kind: str
    outcome: str
    revision: int
    state: AlertState
    attempts: int
    created_at: Moment
    sent_at: Moment | None
    acknowledged_at: Moment | None
    acknowledged_by: str
    error: str | None = Field(description="null but for an operator's token")


class Happened(BaseModel):
    """Something that happened to a study."""

    at: Moment
    what: str
    detail: str


class ResultObject(BaseModel):
    """A DICOM object that the node made of a study."""

    name: str = Field(description="for GET /studies/{study}/objects/{name}")
    what: str
    revision: int
    deliveries: list[str]


class SliceKey(BaseModel):
    """One slice, or one frame of a multi-frame image."""

    model_config = ConfigDict(extra="forbid")

    sop_instance_uid: Annotated[str, Field(max_length=64, pattern=r"^[0-9]+(\.[0-9]+)*$")]
    frame: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class Feedback(BaseModel):
    """What one reader said of one revision."""

    reader: str = Field(description="the person, with the token in brackets, or the token")
    revision: int
    triage: Triage = Field(description="what the study said then")
    agrees: bool
    hemorrhage: bool = Field(description="what the reader says: is there any")
    classes: list[HemorrhageClass]
    slices: list[SliceKey]
    note: str
    given_at: Moment


class FeedbackList(BaseModel):
    """Some feedback, the oldest first, and where to go on."""

    feedback: list[Feedback] = Field(max_length=MOST_FEEDBACK)
    next_after: int | None = Field(description="for the next page; null where this is the last")


class StudyDetail(BaseModel):
    """All that is known of a study but for its slices."""

    study: Study
    series: list[Series]
    deliveries: list[Delivery] = Field(max_length=MOST_ROWS)
    alerts: list[Alert] = Field(max_length=MOST_ROWS)
    timeline: list[Happened] = Field(max_length=MOST_ROWS)
    earlier_studies: str
    legal_hold: str | None = Field(description="why nothing of it is deleted; null but for an operator's token")
    objects: list[ResultObject] | None = Field(description="null for a viewer's token")
    feedback: list[Feedback] | None = Field(description="the newest; null for a viewer's token")


class ClassResult(BaseModel):
    """What was said of one class."""

    name: HemorrhageClass
    presence: Presence | None
    probability: Probability
    low: Probability | None = Field(description="below it the class is absent")
    high: Probability | None = Field(description="from it on the class is present")


class Model(BaseModel):
    """Which model made a result."""

    name: str
    version: str
    sha256: str = Field(description="of its manifest")
    trained: bool


class SliceResult(BaseModel):
    """What was said of one slice, or of a slab of thin ones."""

    slice: SliceKey = Field(description="of a slab, its middle slice")
    members: list[SliceKey] = Field(description="all slices of a slab; empty for a single slice")
    position_mm: float = Field(description="along the slice normal, rising toward the head")
    probabilities: list[ClassProbability]
    is_key: bool = Field(description="the answer rests on it")


class SeriesResult(BaseModel):
    """What was said of a series."""

    series: Series
    test_model: bool
    classes: list[ClassResult] = Field(description="empty where nothing was scored")
    model: Model | None
    slices: list[SliceResult] = Field(max_length=MOST_SLICES)


class StudyResults(BaseModel):
    """The findings of a study."""

    study_instance_uid: Uid
    revision: int
    state: StudyState
    in_words: str
    series: list[SeriesResult] = Field(description="what the answer rests on first")
    objects: list[ResultObject] | None = Field(description="null for a viewer's token")


class NodeState(BaseModel):
    """How the node is."""

    ae_title: str
    version: str
    mode: Literal["live", "objects", "shadow"]
    series: dict[SeriesState, int] = Field(description="how many are in each state")
    deliveries: dict[DeliveryState, int]
    alerts: dict[AlertState, int]
    oldest_open_s: float | None = Field(description="since when the longest waiting series has been open")
    paused_destinations: list[str]
    conditions: dict[str, str] = Field(description="what the watchdog found, by name")
    legal_holds: int


class Requeued(BaseModel):
    """What was queued again."""

    series: int = Field(ge=1)


class StudiesAsked(BaseModel):
    """Which studies a program asks for."""

    model_config = ConfigDict(extra="forbid")

    order: Order = Order.NEWEST
    show: Shown = Shown.ALL
    search: Annotated[
        str,
        Field(
            max_length=LONGEST_SEARCH,
            description="the beginning of a UID, of a station's name or of a sender's AE title",
        ),
    ] = ""
    after: Annotated[str, Field(max_length=32, description="`next_after` of the page before")] = ""
    limit: Annotated[int, Field(ge=1, le=MOST_STUDIES)] = PAGE


class FeedbackAsked(BaseModel):
    """Which feedback a program asks for."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[int, Field(ge=0, le=1_000_000_000, description="`next_after` of the page before")] = 0
    limit: Annotated[int, Field(ge=1, le=MOST_FEEDBACK)] = PAGE


Person = Annotated[str, Field(max_length=LONGEST_PERSON, description="for whom the program asks; null: for nobody")]


def _whole(value: Any) -> Any:
    """Take 1.0 for 1, as JSON Schema does."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class FeedbackGiven(BaseModel):
    """What a reader says of a study as it is now."""

    model_config = ConfigDict(extra="forbid", strict=True)

    agrees: bool
    classes: Annotated[
        list[HemorrhageClass],
        Field(max_length=6, description="what the reader sees; of one who disagrees, empty: no hemorrhage"),
    ]
    slices: Annotated[list[SliceKey], Field(max_length=MOST_SLICES_SAID)] = []
    note: Annotated[str, Field(max_length=LONGEST_NOTE)] = ""
    revision: Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(_whole)] | None = Field(
        default=None, description="that the reader saw; null: whatever there is now"
    )
    by: Person | None = None


class Acknowledged(BaseModel):
    """Who has seen an alert."""

    model_config = ConfigDict(extra="forbid", strict=True)

    by: Person | None = None
