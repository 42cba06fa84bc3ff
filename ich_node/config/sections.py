"""The sections of the configuration; the class of each says what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ich_node.config.values import (
    Address,
    AETitle,
    Certificate,
    Days,
    Folder,
    Host,
    Name,
    Port,
    PositiveSeconds,
    Section,
    is_in_network,
)
from ich_node.records import USUAL_OBJECTS, PeerCertificate
from ich_node.records.rules import NO_CONTRAST_VALUES

Mode = Literal["live", "objects", "shadow"]
NodeRole = Literal["receive", "work", "deliver"]
Outcome = Literal["positive", "indeterminate", "negative", "not_analysed"]
ObjectKind = Literal["report", "summary", "key_slices", "key_objects", "presentation"]


class NodeSettings(Section):
    """``[node]``: who the node is and where its state lives."""

    ae_title: AETitle = "ICH_NODE"
    bind: Host = "0.0.0.0"  # noqa: S104 - a DICOM receiver listens on the network; peers are on an allow-list
    port: Port = 11112
    state_directory: Folder = Path("var")
    host_directory: str = ""
    roles: Annotated[tuple[NodeRole, ...], Field(strict=False)] = ("receive", "work", "deliver")
    mode: Mode = "live"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class ReceiverSettings(Section):
    """``[receiver]``: what is let in."""

    allow_any: bool = False
    maximum_pdu_kib: Annotated[int, Field(ge=4, le=1024)] = 128
    accept: Literal["all", "ct"] = "all"
    maximum_object_mib: Annotated[int, Field(ge=16, le=16384)] = 512
    maximum_associations: Annotated[int, Field(ge=1, le=200)] = 32
    maximum_associations_per_address: Annotated[int, Field(ge=0, le=200)] = 0
    processes: Annotated[int, Field(ge=0, le=16)] = 0
    idle_timeout_s: PositiveSeconds = 60
    reserve_mib: Annotated[int, Field(ge=0)] = 1024

    @property
    def most_of_one_address(self) -> int:
        """Associations that one address may have at once: three quarters of all, where the site does not say."""
        return self.maximum_associations_per_address or max(1, self.maximum_associations * 3 // 4)


class SeriesSettings(Section):
    """``[series]``: when a series counts as arrived."""

    quiet_s: PositiveSeconds = 3
    max_wait_s: PositiveSeconds = 20
    habits: bool = False
    routine_max_age_h: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 24


class EligibilitySettings(Section):
    """``[eligibility]``: what is analysed."""

    minimum_age_years: Annotated[int, Field(ge=0, le=120)] = 18
    pixel_gate: bool = True
    no_contrast_values: Annotated[tuple[str, ...], Field(strict=False)] = NO_CONTRAST_VALUES


class ModelSettings(Section):
    """``[model]``: what scores the slices, and on what."""

    directory: Folder = Path("models/ich-irv2")
    engine: Literal["auto", "cuda", "openvino", "openvino-int8", "torch"] = "auto"
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    public_key: str = ""
    allow_older: bool = False
    show_findings_of_untrained_model: bool = False

    @property
    def public_key_file(self) -> Path | None:
        """The key that a bundle must be signed with; None where no signature is demanded."""
        return Path(self.public_key) if self.public_key else None


class DecodeSettings(Section):
    """``[decode]``: limits of the child processes that decode images."""

    processes: Annotated[int, Field(ge=1, le=64)] = 1
    timeout_s: PositiveSeconds = 20
    memory_mib: Annotated[int, Field(ge=256)] = 3072
    maximum_rows: Annotated[int, Field(ge=64, le=65535)] = 4096
    maximum_columns: Annotated[int, Field(ge=64, le=65535)] = 4096
    maximum_frames: Annotated[int, Field(ge=1, le=100_000)] = 2000


class PeerSettings(Section):
    """One ``[[peer]]``: who may send, and whether results go back there."""

    ae_title: AETitle
    address: Address
    return_port: Port | None = None
    destinations: Annotated[tuple[Name, ...], Field(strict=False)] | None = None
    mode: Mode | None = None
    certificate: Certificate | None = None
    return_tls: bool = False

    def matches(self, ae_title: str, remote_address: str) -> bool:
        """Say whether a caller is this peer: AE title and address must both fit."""
        return self.ae_title == ae_title and is_in_network(remote_address, self.address)

    def is_shown_by(self, certificate: PeerCertificate | None) -> bool:
        """Say whether a certificate is this peer's; one that names none needs none."""
        bound = self.certificate
        return bound is None or (certificate is not None and certificate.belongs_to(bound))


class DestinationSettings(Section):
    """One ``[[destination]]``: where results go."""

    name: Name
    ae_title: AETitle
    host: Host
    port: Port
    skip_old: bool = False
    objects: Annotated[tuple[ObjectKind, ...], Field(strict=False, min_length=1)] = USUAL_OBJECTS
    triage: Annotated[tuple[Outcome, ...], Field(strict=False, min_length=1)] | None = None
    tls: bool = False
    tls_name: Host | None = None
    commitment: bool = False


class ViewerSettings(Section):
    """``[viewer]``: which images and flags are made beside the report."""

    summary_also_for: Annotated[
        tuple[Literal["indeterminate", "negative", "not_analysed"], ...], Field(strict=False)
    ] = ("indeterminate", "not_analysed")
    heatmaps: bool = True


class PrioritySettings(Section):
    """One ``[[priority]]``: studies that go before or behind the others. Every key that is given must fit."""

    level: Annotated[int, Field(ge=-100, le=100)]
    ae_title: AETitle | None = None
    station_name: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    requested: (
        Annotated[tuple[Literal["STAT", "HIGH", "MEDIUM", "ROUTINE", "LOW"], ...], Field(strict=False)] | None
    ) = None


class QuerySettings(Section):
    """``[query]``: the PACS that is asked how many images a series has."""

    ae_title: AETitle
    host: Host
    port: Port
    tls: bool = False
    tls_name: Host | None = None


class HistorySettings(Section):
    """``[history]``: whether the PACS of ``[query]`` is asked for earlier studies of a patient."""

    query: bool = False


class DeliverySettings(Section):
    """``[delivery]``: patience with destinations."""

    first_retry_s: PositiveSeconds = 5
    longest_retry_s: PositiveSeconds = 600
    give_up_days: Days = 7
    refused_tries: Annotated[int, Field(ge=1, le=100)] = 5
    paused_retry_s: PositiveSeconds = 60
    connect_timeout_s: PositiveSeconds = 10
    response_timeout_s: PositiveSeconds = 30
    commitment_wait_h: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 24
    commitment_stay_s: Annotated[float, Field(ge=0, le=60)] = 3


class RetentionSettings(Section):
    """``[retention]``: how long things are kept on disk."""

    images_days: Days = 14
    not_head_days: Days = 1
    results_days: Days = 365
