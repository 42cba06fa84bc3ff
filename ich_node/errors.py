"""Every error of the node, as one tree.

::

    IchNodeError
    ├── ConfigError             the configuration has faults; all of them are listed
    ├── StartError              this process cannot run here: port, folder, database, schema
    ├── SeriesNotAnalysed       expected and final; ``reason`` says why
    │   ├── Ineligible          not an axial non-contrast head CT
    │   └── Unreadable          the bytes cannot be turned into Hounsfield units
    ├── ModelError              the model bundle is missing, altered or gives nonsense; stops the worker
    ├── ReportError             a report could not be built
    ├── AlertRefused            an alert cannot be told as it is: the receiver refuses it, or its template has a fault
    ├── AnswerNotUnderstood     an answer to an alert is no HL7 message
    ├── EventReportNotUnderstood  an answer of storage commitment cannot be read
    ├── TrainingError           data, settings or a run of the training module cannot be used; says what to change
    └── TransientError          worth another try, with back-off
        ├── DestinationUnavailable   no connection, an abort or a time-out
        ├── DestinationRefuses       association rejected, or no presentation context accepted
        │   └── ClassNotTaken        the association stands, but not for this kind of object
        ├── ChannelUnavailable       an alert's receiver could not be reached, hung, or answered that it cannot now
        ├── StoreRefused             the peer answered with a failure status
        ├── SpoolFull                no room, or below the reserve
        └── DatabaseBusy             the database stayed locked

Errors carry fields, never patient data: their texts may reach a log.
"""

from pathlib import Path

from ich_node.records import NotAnalysedReason


class IchNodeError(Exception):
    """Something the node knows how to name."""


class ConfigError(IchNodeError):
    """The configuration has faults."""

    def __init__(self, source: Path | str, faults: list[str]) -> None:
        self.source = source
        self.faults = faults
        lines = "\n".join(f"  - {fault}" for fault in faults)
        count = f"{len(faults)} fault" + ("s" if len(faults) != 1 else "")
        super().__init__(f"{source}: {count}\n{lines}")


class StartError(IchNodeError):
    """This process cannot run here, and a restart alone will not mend it."""


class SeriesNotAnalysed(IchNodeError):
    """A series or slice gets no result, for a reason that will not change."""

    def __init__(self, reason: NotAnalysedReason, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason.text}: {detail}" if detail else reason.text)

    def __reduce__(self) -> tuple[type["SeriesNotAnalysed"], tuple[NotAnalysedReason, str]]:
        return type(self), (self.reason, self.detail)


class Ineligible(SeriesNotAnalysed):
    """The series is not an axial non-contrast head CT."""


class Unreadable(SeriesNotAnalysed):
    """The object cannot be decoded into Hounsfield units."""


class ModelError(IchNodeError):
    """The model bundle is missing, altered or gives nonsense. The worker stops rather than guess."""


class ReportError(IchNodeError):
    """A report could not be built."""


class AlertRefused(IchNodeError):
    """An alert cannot be told as it is: the receiver refuses it for good, or its template has a fault."""


class AnswerNotUnderstood(IchNodeError):
    """What came as the answer to an alert is no HL7 v2 message."""


class EventReportNotUnderstood(IchNodeError):
    """An answer of storage commitment cannot be read, or contradicts itself."""


class TrainingError(IchNodeError):
    """Data, settings or a run of the training module cannot be used as they are; the text says what to change."""


class TransientError(IchNodeError):
    """Worth another try."""


class DestinationUnavailable(TransientError):
    """The destination could not be reached, aborted, or did not answer in time."""


class DestinationRefuses(TransientError):
    """The destination rejects our association or accepts none of our presentation contexts."""


class ClassNotTaken(DestinationRefuses):
    """The destination takes other objects of ours, but none of this storage class."""


class ChannelUnavailable(TransientError):
    """An alert's receiver could not be reached, hung, or answered that it cannot take it now."""


class StoreRefused(TransientError):
    """The destination answered a request with a failure status."""

    def __init__(self, dimse_status: int, comment: str = "") -> None:
        self.dimse_status = dimse_status
        self.comment = comment
        super().__init__(f"status 0x{dimse_status:04X}" + (f" ({comment})" if comment else ""))


class SpoolFull(TransientError):
    """There is no room for another object."""


class DatabaseBusy(TransientError):
    """The database stayed locked longer than we may wait."""
