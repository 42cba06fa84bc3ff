"""Typed settings from one TOML file; all faults are reported at once."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from ich_node.errors import ConfigError
from ich_node.records.rules import NO_CONTRAST_VALUES

DEFAULT_PATHS: Final = (Path("config/ich-node.toml"), Path("/etc/ich-node/ich-node.toml"))

_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")
_WITH_PASSWORD = re.compile(r"://[^/@]*@")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def _ae_title(value: str) -> str:
    """Check an application entity title (PS3.5 Table 6.2-1, VR AE)."""
    if not _AE_TITLE.fullmatch(value) or not value.strip():
        raise ValueError("must be 1 to 16 ASCII characters, without backslash, not only spaces (PS3.5 AE)")
    return value.strip()


def _host(value: str) -> str:
    if not _HOST_NAME.fullmatch(value) and not (_is_network(value) and "/" not in value):
        raise ValueError("must be a host name or an IP address")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must be 1 to 32 letters, digits, - or _")
    return value


def _address(value: str) -> str:
    if not _is_network(value):
        raise ValueError("must be an IP address such as 10.1.2.3, or a network such as 10.1.2.0/24")
    return value


def _folder(value: Path) -> Path:
    if not value.parts or "\0" in str(value):
        raise ValueError("must be the path of a folder")
    return value


def _is_network(value: str) -> bool:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return True


AETitle = Annotated[str, AfterValidator(_ae_title)]
Host = Annotated[str, AfterValidator(_host)]
Address = Annotated[str, AfterValidator(_address)]
Folder = Annotated[Path, Field(strict=False), AfterValidator(_folder)]
Port = Annotated[int, Field(ge=1, le=65535)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Days = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, AfterValidator(_name)]


class _Section(BaseModel):
    # strict: a port of "11112" or an allow_any of "yes" is a slip, and slips are not guessed at
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, strict=True)


class NodeSettings(_Section):
    """``[node]``: who the node is and where its state lives."""

    ae_title: AETitle = "ICH_NODE"
    bind: Host = "0.0.0.0"  # noqa: S104 - a DICOM receiver listens on the network; peers are on an allow-list
    port: Port = 11112
    state_directory: Folder = Path("var")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class ReceiverSettings(_Section):
    """``[receiver]``: what is let in."""

    allow_any: bool = False
    maximum_pdu_kib: Annotated[int, Field(ge=4, le=1024)] = 128
    accept: Literal["all", "ct"] = "all"
    maximum_associations: Annotated[int, Field(ge=1, le=200)] = 32
    idle_timeout_s: PositiveSeconds = 60
    reserve_mib: Annotated[int, Field(ge=0)] = 1024


class SeriesSettings(_Section):
    """``[series]``: when a series counts as arrived."""

    quiet_s: PositiveSeconds = 3
    max_wait_s: PositiveSeconds = 20
    routine_max_age_h: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 24


class EligibilitySettings(_Section):
    """``[eligibility]``: what is analysed."""

    minimum_age_years: Annotated[int, Field(ge=0, le=120)] = 18
    pixel_gate: bool = True
    no_contrast_values: Annotated[tuple[str, ...], Field(strict=False)] = NO_CONTRAST_VALUES


class ModelSettings(_Section):
    """``[model]``: what scores the slices, and on what."""

    directory: Folder = Path("models/ich-irv2")
    engine: Literal["auto", "cuda", "openvino", "torch"] = "auto"
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    show_findings_of_untrained_model: bool = False


class DecodeSettings(_Section):
    """``[decode]``: limits of the child processes that decode images."""

    processes: Annotated[int, Field(ge=1, le=64)] = 1
    timeout_s: PositiveSeconds = 20
    memory_mib: Annotated[int, Field(ge=256)] = 3072
    maximum_rows: Annotated[int, Field(ge=64, le=65535)] = 4096
    maximum_columns: Annotated[int, Field(ge=64, le=65535)] = 4096
    maximum_frames: Annotated[int, Field(ge=1, le=100_000)] = 2000


class PeerSettings(_Section):
    """One ``[[peer]]``: who may send, and whether results go back there."""

    ae_title: AETitle
    address: Address
    return_port: Port | None = None
    destinations: Annotated[tuple[Name, ...], Field(strict=False)] | None = None

    def matches(self, ae_title: str, remote_address: str) -> bool:
        """Say whether a caller is this peer: AE title and address must both fit."""
        return self.ae_title == ae_title and _ip(remote_address) in ipaddress.ip_network(self.address, strict=False)


class DestinationSettings(_Section):
    """One ``[[destination]]``: where results go."""

    name: Name
    ae_title: AETitle
    host: Host
    port: Port
    skip_old: bool = False


class PrioritySettings(_Section):
    """One ``[[priority]]``: studies that go before or behind the others. Every key that is given must fit."""

    level: Annotated[int, Field(ge=-100, le=100)]
    ae_title: AETitle | None = None
    station_name: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    requested: (
        Annotated[tuple[Literal["STAT", "HIGH", "MEDIUM", "ROUTINE", "LOW"], ...], Field(strict=False)] | None
    ) = None


class QuerySettings(_Section):
    """``[query]``: the PACS that is asked how many images a series has."""

    ae_title: AETitle
    host: Host
    port: Port


class DeliverySettings(_Section):
    """``[delivery]``: patience with destinations."""

    first_retry_s: PositiveSeconds = 5
    longest_retry_s: PositiveSeconds = 600
    give_up_days: Days = 7
    refused_tries: Annotated[int, Field(ge=1, le=100)] = 5
    paused_retry_s: PositiveSeconds = 60
    connect_timeout_s: PositiveSeconds = 10
    response_timeout_s: PositiveSeconds = 30


class DatabaseSettings(_Section):
    """``[database]``: where the queue lives."""

    url: str = ""
    busy_timeout_s: PositiveSeconds = 30

    @field_validator("url")
    @classmethod
    def _supported(cls, value: str) -> str:
        if value and not value.startswith("sqlite:///"):
            raise ValueError(
                "must be empty (SQLite in the state folder) or sqlite:///PATH; other databases are not supported yet"
            )
        return value


class RetentionSettings(_Section):
    """``[retention]``: how long things are kept on disk."""

    images_days: Days = 14
    not_head_days: Days = 1
    results_days: Days = 365


class Config(_Section):
    """The whole configuration file. The attribute names are the section names."""

    node: NodeSettings = NodeSettings()
    receiver: ReceiverSettings = ReceiverSettings()
    series: SeriesSettings = SeriesSettings()
    eligibility: EligibilitySettings = EligibilitySettings()
    model: ModelSettings = ModelSettings()
    decode: DecodeSettings = DecodeSettings()
    delivery: DeliverySettings = DeliverySettings()
    database: DatabaseSettings = DatabaseSettings()
    retention: RetentionSettings = RetentionSettings()
    peer: Annotated[tuple[PeerSettings, ...], Field(strict=False)] = ()
    destination: Annotated[tuple[DestinationSettings, ...], Field(strict=False)] = ()
    priority: Annotated[tuple[PrioritySettings, ...], Field(strict=False)] = ()
    query: QuerySettings | None = None

    @property
    def state_directory(self) -> Path:
        return self.node.state_directory

    @property
    def database_url(self) -> str:
        return self.database.url or f"sqlite:///{self.state_directory / 'ich-node.sqlite'}"


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.split("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def find_config(given: Path | None) -> Path:
    """Return the configuration file to read: given, named by ``ICH_NODE_CONFIG``, or at a usual place."""
    if given is not None:
        return given
    if named := os.environ.get("ICH_NODE_CONFIG"):
        return Path(named)
    return next((path for path in DEFAULT_PATHS if path.is_file()), DEFAULT_PATHS[0])


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: every fault in the file, each with its key, its value and what is allowed.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        return parse_config(tomllib.loads(text), source=path)
    except FileNotFoundError:
        raise ConfigError(path, ["no such file; copy config/ich-node.toml there, or name one with --config"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, [f"cannot be read: {error}"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, [f"not valid TOML: {error}"]) from None


def parse_config(values: dict[str, Any], source: Path | str = "configuration") -> Config:
    """Check values that are already read; see :func:`load_config`."""
    faults = _faults_between_keys(values)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        faults = [_describe(details) for details in error.errors()] + faults
    if faults:
        raise ConfigError(source, faults)
    return config


def _faults_between_keys(values: dict[str, Any]) -> list[str]:
    """Name what no single key shows. Looks at raw values, so that it speaks even where single keys are wrong."""
    peers, destinations = _tables(values, "peer"), _tables(values, "destination")
    faults = []
    names = [one["name"] for one in destinations if isinstance(one.get("name"), str)]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        faults.append(f"destination.name: must differ; given more than once: {', '.join(repeated)}")
    for number, peer in enumerate(peers):
        chosen = peer.get("destinations")
        if unknown := [name for name in chosen if name not in names] if isinstance(chosen, list) else []:
            known = ", ".join(names) or "none"
            faults.append(f"peer.{number}.destinations = {unknown}: unknown destination; known: {known}")
    if not values.get("peer") and _section(values, "receiver").get("allow_any") in (None, False):
        faults.append("peer: nobody may send; add a [[peer]] with ae_title and address, or receiver.allow_any = true")
    for number, rule in enumerate(_tables(values, "priority")):
        if not any(rule.get(condition) for condition in ("ae_title", "station_name", "requested")):
            faults.append(f"priority.{number}: would fit everything; give ae_title, station_name or requested")
    series = SeriesSettings.model_construct(**_section(values, "series"))
    if _is_number(series.quiet_s) and _is_number(series.max_wait_s) and series.max_wait_s < series.quiet_s:
        faults.append(f"series.max_wait_s = {series.max_wait_s:g}: must not be shorter than quiet_s")
    return faults


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    section = values.get(name)
    return section if isinstance(section, dict) else {}


def _tables(values: dict[str, Any], name: str) -> list[dict[str, Any]]:
    tables = values.get(name)
    return [table for table in tables if isinstance(table, dict)] if isinstance(tables, list) else []


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _describe(details: ErrorDetails) -> str:
    key = ".".join(str(part) for part in details["loc"]) or "file"
    if details["type"] == "extra_forbidden":
        return f"{key}: unknown key; allowed: {', '.join(_allowed_keys(details['loc'][:-1]))}"
    if details["type"] == "missing":
        return f"{key}: missing"
    given = details["input"]
    shown = "" if isinstance(given, dict | list | BaseModel) else f" = {_WITH_PASSWORD.sub('://***@', repr(given))}"
    return f"{key}{shown}: {_what_is_allowed(details)}"


def _what_is_allowed(details: ErrorDetails) -> str:
    section = details["loc"][0] if details["loc"] else ""
    if details["type"] == "model_type":
        return f"must be a table: [[{section}]]" if len(details["loc"]) > 1 else f"must be a table: [{section}]"
    if details["type"] == "tuple_type":
        return "must be a list of names" if len(details["loc"]) > 1 else f"must be tables: [[{section}]]"
    return details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")


def _allowed_keys(location: tuple[int | str, ...]) -> list[str]:
    if not location:
        return sorted(Config.model_fields)
    sections: dict[str, type[_Section]] = {
        "node": NodeSettings, "receiver": ReceiverSettings, "series": SeriesSettings, "model": ModelSettings,
        "decode": DecodeSettings, "delivery": DeliverySettings, "database": DatabaseSettings,
        "retention": RetentionSettings, "peer": PeerSettings, "destination": DestinationSettings,
        "eligibility": EligibilitySettings, "priority": PrioritySettings, "query": QuerySettings,
    }  # fmt: skip
    return sorted(sections[str(location[0])].model_fields)
