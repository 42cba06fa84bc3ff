"""Read the configuration file; all faults are reported at once."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from ich_node.config.alert_sections import (
    AlertRuleSettings,
    AlertSettings,
    HL7ChannelSettings,
    MailChannelSettings,
    WatchdogSettings,
    WebhookChannelSettings,
)
from ich_node.config.answer_sections import AlertAnswersSettings, WebSettings
from ich_node.config.audit_section import AuditSettings
from ich_node.config.database_section import DatabaseSettings
from ich_node.config.drift_section import DriftSettings
from ich_node.config.hosts import faults_of_hosts
from ich_node.config.sections import (
    DecodeSettings,
    DeliverySettings,
    DestinationSettings,
    EligibilitySettings,
    HistorySettings,
    ModelSettings,
    NodeSettings,
    PeerSettings,
    PrioritySettings,
    QuerySettings,
    ReceiverSettings,
    RetentionSettings,
    SeriesSettings,
    ViewerSettings,
)
from ich_node.config.self_test_section import SelfTestSettings, faults_of_reserved_ae_title
from ich_node.config.storage_section import StorageSettings
from ich_node.config.tls_section import TlsSettings, faults_without_tls
from ich_node.config.values import Section
from ich_node.errors import ConfigError
from ich_node.records import RetentionRules

DEFAULT_PATHS: Final = (Path("config/ich-node.toml"), Path("/etc/ich-node/ich-node.toml"))

CHANNELS: Final = ("alert_hl7", "alert_webhook", "alert_mail")

_WITH_PASSWORD = re.compile(r"://[^/@]*@|password=[^&'\"]*")


class Config(Section):
    """The whole configuration file. The attribute names are the section names."""

    node: NodeSettings = NodeSettings()
    receiver: ReceiverSettings = ReceiverSettings()
    tls: TlsSettings = TlsSettings()
    series: SeriesSettings = SeriesSettings()
    eligibility: EligibilitySettings = EligibilitySettings()
    model: ModelSettings = ModelSettings()
    decode: DecodeSettings = DecodeSettings()
    delivery: DeliverySettings = DeliverySettings()
    database: DatabaseSettings = DatabaseSettings()
    storage: StorageSettings = StorageSettings()
    retention: RetentionSettings = RetentionSettings()
    audit: AuditSettings = AuditSettings()
    peer: Annotated[tuple[PeerSettings, ...], Field(strict=False)] = ()
    destination: Annotated[tuple[DestinationSettings, ...], Field(strict=False)] = ()
    priority: Annotated[tuple[PrioritySettings, ...], Field(strict=False)] = ()
    query: QuerySettings | None = None
    history: HistorySettings = HistorySettings()
    viewer: ViewerSettings = ViewerSettings()
    alert: AlertSettings = AlertSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    self_test: SelfTestSettings = SelfTestSettings()
    drift: DriftSettings = DriftSettings()
    web: WebSettings = WebSettings()
    alert_answers: AlertAnswersSettings = AlertAnswersSettings()
    alert_rule: Annotated[tuple[AlertRuleSettings, ...], Field(strict=False)] = ()
    alert_hl7: Annotated[tuple[HL7ChannelSettings, ...], Field(strict=False)] = ()
    alert_webhook: Annotated[tuple[WebhookChannelSettings, ...], Field(strict=False)] = ()
    alert_mail: Annotated[tuple[MailChannelSettings, ...], Field(strict=False)] = ()

    @property
    def state_directory(self) -> Path:
        return self.node.state_directory

    @property
    def has_several_hosts(self) -> bool:
        """Whether other hosts share the database and the state folder."""
        return bool(self.node.host_directory)

    @property
    def host_directory(self) -> Path:
        """What is this host's own: locks, how its clock stood, caches. On a node of one host it is the state folder."""
        return Path(self.node.host_directory) if self.has_several_hosts else self.state_directory

    @property
    def database_url(self) -> str:
        return self.database.location(self.state_directory)

    @property
    def retention_rules(self) -> RetentionRules:
        days = self.retention
        return RetentionRules(days.images_days, days.not_head_days, days.results_days, self.delivery.commitment_wait_h)


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
    faults += _faults_of_channels(values)
    faults += faults_without_tls(values)
    faults += faults_of_reserved_ae_title(values)
    faults += faults_of_hosts(values)
    if _section(values, "history").get("query") is True and "query" not in values:
        faults.append("history.query = true: needs [query], the PACS that is asked")
    if not values.get("peer") and _section(values, "receiver").get("allow_any") in (None, False):
        faults.append("peer: nobody may send; add a [[peer]] with ae_title and address, or receiver.allow_any = true")
    for number, rule in enumerate(_tables(values, "priority")):
        if not any(rule.get(condition) for condition in ("ae_title", "station_name", "requested")):
            faults.append(f"priority.{number}: would fit everything; give ae_title, station_name or requested")
    series = SeriesSettings.model_construct(**_section(values, "series"))
    if _is_number(series.quiet_s) and _is_number(series.max_wait_s) and series.max_wait_s < series.quiet_s:
        faults.append(f"series.max_wait_s = {series.max_wait_s:g}: must not be shorter than quiet_s")
    return faults


def _faults_of_channels(values: dict[str, Any]) -> list[str]:
    """Channels have one name each, and rules tell channels that there are."""
    channels = [table for kind in CHANNELS for table in _tables(values, kind)]
    names = [one["name"] for one in channels if isinstance(one.get("name"), str)]
    faults = []
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        faults.append(f"{', '.join(CHANNELS)}: names must differ; given more than once: {', '.join(repeated)}")
    for number, rule in enumerate(_tables(values, "alert_rule")):
        for key in ("tell", "then"):
            told = rule.get(key)
            if unknown := [one for one in told if one not in names] if isinstance(told, list) else []:
                known = ", ".join(names) or "none"
                faults.append(f"alert_rule.{number}.{key} = {unknown}: unknown channel; known: {known}")
    people = [one.get("name") for kind in ("alert_webhook", "alert_mail") for one in _tables(values, kind)]
    told = _section(values, "watchdog").get("tell")
    if unfit := [one for one in told if one not in people] if isinstance(told, list) else []:
        known = ", ".join(map(str, people)) or "none"
        faults.append(f"watchdog.tell = {unfit}: must be channels of webhook or mail; known: {known}")
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
    shown = "" if isinstance(given, dict | list | BaseModel) else f" = {_WITH_PASSWORD.sub(_masked, repr(given))}"
    return f"{key}{shown}: {_what_is_allowed(details)}"


def _masked(found: re.Match[str]) -> str:
    return "://***@" if found[0].startswith("://") else "password=***"


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
    section = Config.model_fields[str(location[0])]
    shape = next(one for one in _types(section.annotation) if issubclass(one, Section))
    return sorted(shape.model_fields)


def _types(annotation: Any) -> list[type]:
    """List the classes that an annotation is made of."""
    if isinstance(annotation, type):
        return [annotation]
    return [one for part in getattr(annotation, "__args__", ()) for one in _types(part)]
