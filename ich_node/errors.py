"""Every error of the node, as one tree.

::

    IchNodeError
    ├── ConfigError             the configuration has faults; all of them are listed
    ├── StartError              this process cannot run here: port, folder, database, schema
    │   ├── SecretFileError     a secret or key cannot be read, or others can; ``path`` and ``why``
    │   ├── DamagedTable        a table of scores is damaged, or of another version; ``path`` and ``why``
    │   └── AlreadyRunning      another node or role works on the state folder
    ├── SeriesNotAnalysed       expected and final; ``reason`` says why
    │   ├── Ineligible          not an axial non-contrast head CT
    │   └── Unreadable          the bytes cannot be turned into Hounsfield units
    ├── ModelError              the model bundle is missing, altered or gives nonsense; stops the worker
    ├── DeviceFailed            the processor that scores failed; the worker ends and is started again
    ├── StorageFailed           disk or database failed so that nothing in memory can be trusted; the process ends
    ├── ReportError             a report could not be built
    ├── FindingLost             the finding of a concluded series went with a database that was rebuilt
    ├── AlertRefused            an alert cannot be told as it is: the receiver refuses it, or its template has a fault
    ├── AnswerNotUnderstood     an answer to an alert is no HL7 message
    ├── EventReportNotUnderstood  an answer of storage commitment cannot be read
    ├── AccountError            an account or a token cannot be made or changed so
    ├── TableFaults             a table of labels or scores has faults; all of them are listed
    ├── ZipRefused              a zip file, or a member of it, is damaged or beyond the limits
    ├── BulkScoringStopped      series after series of an archive cannot be scored; what was, is kept
    ├── TrainingError           data, settings or a run of the training module cannot be used; says what to change
    └── TransientError          worth another try, with back-off
        ├── DestinationUnavailable   no connection, an abort or a time-out
        │   └── AnswerCut            a PACS gives some answers to a query, and says that there are more
        ├── DestinationRefuses       association rejected, or no presentation context accepted
        │   ├── ClassNotTaken        the association stands, but not for this kind of object
        │   └── MoveDestinationUnknown   a PACS does not know to whom it is to send; ``ae_title``
        ├── ChannelUnavailable       an alert's receiver could not be reached, hung, or answered that it cannot now
        ├── StoreRefused             the peer answered with a failure status
        └── StorageUnavailable       nothing can be written now; no fault of the job
            ├── SpoolFull            no room, or below the reserve
            ├── SpoolReadOnly        the disk is mounted read-only
            ├── DatabaseBusy         the database stayed locked
            ├── DatabaseAway         the database server does not answer
            ├── ObjectStoreAway      the object store does not answer, or refuses
            └── ClockDisagrees       the clock of this host is not that of the database server; ``ahead_s``

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


class SecretFileError(StartError):
    """A file that holds a secret, or that trust rests on, cannot be read, or others than its owner can."""

    def __init__(self, path: Path | str, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"{path}: {why}")

    def __reduce__(self) -> tuple[type["SecretFileError"], tuple[Path | str, str]]:
        return type(self), (self.path, self.why)


class DamagedTable(StartError):
    """A table of scores, or a part of one, is damaged or of another version."""

    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"{path}: {why}")

    def __reduce__(self) -> tuple[type["DamagedTable"], tuple[Path, str]]:
        return type(self), (self.path, self.why)


class AlreadyRunning(StartError):
    """Another node, or another process of this role, works on the state folder."""


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


class DeviceFailed(IchNodeError):
    """The processor that scores failed, or has too little memory. No fault of a series; a fresh process may do."""


class StorageFailed(IchNodeError):
    """The disk or the database failed: an fsync, a damaged page, a file that was taken away.

    After a failed fsync the kernel may call pages clean that never reached the disk (https://lwn.net/Articles/752063/),
    so trying again proves nothing. Whoever gets this ends, and looks the files over at the next start.
    """


class ReportError(IchNodeError):
    """A report could not be built."""


class FindingLost(IchNodeError):
    """What a concluded series said is only in its report: the database was rebuilt."""

    def __init__(self, series_id: int) -> None:
        self.series_id = series_id
        super().__init__("the finding of another series, that the answer rests on, is not in the database")


class AlertRefused(IchNodeError):
    """An alert cannot be told as it is: the receiver refuses it for good, or its template has a fault."""


class AnswerNotUnderstood(IchNodeError):
    """What came as the answer to an alert is no HL7 v2 message."""


class EventReportNotUnderstood(IchNodeError):
    """An answer of storage commitment cannot be read, or contradicts itself."""


class AccountError(IchNodeError):
    """An account or a token cannot be made or changed so; the text says why."""


class TableFaults(IchNodeError):
    """A table of labels or scores has faults."""

    def __init__(self, source: Path | str, faults: list[str]) -> None:
        self.source = source
        self.faults = faults
        count = f"{len(faults)} fault" + ("s" if len(faults) != 1 else "")
        super().__init__(f"{source}: {count}\n" + "\n".join(f"  - {fault}" for fault in faults))


class ZipRefused(IchNodeError):
    """A zip file, or a member of it, is damaged or beyond the limits."""


class BulkScoringStopped(IchNodeError):
    """Series after series of an archive cannot be scored: it is no fault of theirs."""


class TrainingError(IchNodeError):
    """Data, settings or a run of the training module cannot be used as they are; the text says what to change."""


class TransientError(IchNodeError):
    """Worth another try."""


class DestinationUnavailable(TransientError):
    """The destination could not be reached, aborted, or did not answer in time."""


class AnswerCut(DestinationUnavailable):
    """The PACS gave some of the answers to a query, and says that it gives no more."""


class DestinationRefuses(TransientError):
    """The destination rejects our association or accepts none of our presentation contexts."""


class ClassNotTaken(DestinationRefuses):
    """The destination takes other objects of ours, but none of this storage class."""


class MoveDestinationUnknown(DestinationRefuses):
    """The PACS does not know the AE title that it is to send images to (0xA801)."""

    def __init__(self, ae_title: str) -> None:
        self.ae_title = ae_title
        super().__init__(f"it does not know the move destination {ae_title} (status 0xA801)")


class ChannelUnavailable(TransientError):
    """An alert's receiver could not be reached, hung, or answered that it cannot take it now."""


class StoreRefused(TransientError):
    """The destination answered a request with a failure status."""

    def __init__(self, dimse_status: int) -> None:
        self.dimse_status = dimse_status
        super().__init__(f"status 0x{dimse_status:04X}")


class StorageUnavailable(TransientError):
    """The state folder or the database cannot be written now. It passes; no fault of what was being stored."""


class SpoolFull(StorageUnavailable):
    """There is no room for another object."""


class SpoolReadOnly(StorageUnavailable):
    """The disk is mounted read-only."""


class DatabaseBusy(StorageUnavailable):
    """The database stayed locked longer than we may wait."""


class DatabaseAway(StorageUnavailable):
    """The database server does not answer; nothing was written."""


class ObjectStoreAway(StorageUnavailable):
    """The object store does not answer, or refuses; whether it took what was being stored is not known."""


class ClockDisagrees(StorageUnavailable):
    """The clock of this host is so far from the database server's that the host would take what is not its."""

    def __init__(self, ahead_s: float) -> None:
        self.ahead_s = ahead_s
        how = "ahead of" if ahead_s > 0 else "behind"
        super().__init__(f"the clock of this host is {abs(ahead_s):.0f} s {how} the database server's: set them right")

    def __reduce__(self) -> tuple[type["ClockDisagrees"], tuple[float]]:
        return type(self), (self.ahead_s,)
