"""The sections of the configuration that say who is told what, and how."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from ich_node.config.sections import Outcome
from ich_node.config.values import AETitle, Days, Host, Name, Port, PositiveSeconds, Section, is_host

_TIME_SPAN = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")
_URL = re.compile(r"https?://[^\s/@]+(/\S*)?")
_MAIL_ADDRESS = re.compile(r"[^\s@<>,;]+@[^\s@<>,;]+")


def _time_span(value: str) -> str:
    if not _TIME_SPAN.fullmatch(value) or value[:5] == value[6:]:
        raise ValueError('must be two times of the day, such as "17:00-07:00"')
    return value


def _url(value: str) -> str:
    try:
        url = urlsplit(value)
        well = _URL.fullmatch(value) and is_host(url.hostname or "") and url.port != 0
    except ValueError:  # a port beyond 65535, a bracket without its end
        well = False
    if not well:
        raise ValueError("must be http:// or https:// and a host, without a password in it")
    return value


def _mail_address(value: str) -> str:
    if not _MAIL_ADDRESS.fullmatch(value):
        raise ValueError("must be an address such as ct@hospital.example")
    return value


HemorrhageClass = Literal["any", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural"]
TimeSpan = Annotated[str, AfterValidator(_time_span)]
Url = Annotated[str, AfterValidator(_url)]
MailAddress = Annotated[str, AfterValidator(_mail_address)]
File = Annotated[Path, Field(strict=False)]
Code = Annotated[str, Field(max_length=180, pattern=r"^[^|^~\\&\r\n]*$")]
"""A name in an HL7 message, without its delimiters."""


class AlertSettings(Section):
    """``[alert]``: patience with channels, and what alerts nobody."""

    early: bool = True
    fast_pass: bool = True
    maximum_age_h: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 24
    first_retry_s: PositiveSeconds = 5
    longest_retry_s: PositiveSeconds = 300
    give_up_days: Days = 2
    refused_tries: Annotated[int, Field(ge=1, le=100)] = 5
    connect_timeout_s: PositiveSeconds = 5
    response_timeout_s: PositiveSeconds = 10


class AlertRuleSettings(Section):
    """One ``[[alert_rule]]``: who is told of what. Every condition that is given must fit."""

    tell: Annotated[tuple[Name, ...], Field(strict=False, min_length=1)]
    triage: Annotated[tuple[Outcome, ...], Field(strict=False, min_length=1)] = ("positive",)
    classes: Annotated[tuple[HemorrhageClass, ...], Field(strict=False, min_length=1)] | None = None
    minimum_probability: Annotated[float, Field(ge=0, le=1)] = 0.0
    station_name: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    ae_title: AETitle | None = None
    known_bleed: bool | None = None
    hours: TimeSpan | None = None
    answer_within_s: PositiveSeconds | None = None
    then: Annotated[tuple[Name, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _escalates_in_time(self) -> AlertRuleSettings:
        if self.then and self.answer_within_s is None:
            raise ValueError("then needs answer_within_s: how long an acknowledgement is waited for")
        return self


class WatchdogSettings(Section):
    """``[watchdog]``: when the operators are told of the node itself."""

    tell: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    no_result_s: PositiveSeconds = 120
    queue_wait_s: PositiveSeconds = 60
    destination_down_s: PositiveSeconds = 300


class _Channel(Section):
    name: Name
    most_per_minute: Annotated[int, Field(ge=1, le=6000)] = 60


class HL7ChannelSettings(_Channel):
    """One ``[[alert_hl7]]``: ORU^R01 over MLLP."""

    host: Host
    port: Port
    sending_application: Code = "ICH_NODE"
    sending_facility: Code = ""
    receiving_application: Code = ""
    receiving_facility: Code = ""
    processing_id: Literal["P", "T", "D"] = "P"
    encoding: Literal["utf-8", "latin-1", "ascii"] = "utf-8"
    template: File | None = None


class WebhookChannelSettings(_Channel):
    """One ``[[alert_webhook]]``: signed JSON over HTTP."""

    url: Url
    secret_file: File
    phi: bool = False
    ca_file: File | None = None
    client_certificate: File | None = None
    client_key: File | None = None

    @model_validator(mode="after")
    def _has_both_halves(self) -> WebhookChannelSettings:
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("client_certificate and client_key go together")
        return self


class MailChannelSettings(_Channel):
    """One ``[[alert_mail]]``: e-mail over SMTP."""

    host: Host
    port: Port = 587
    starttls: bool = True
    ca_file: File | None = None
    user: Annotated[str, Field(max_length=200)] = ""
    password_file: File | None = None
    sender: MailAddress
    recipients: Annotated[tuple[MailAddress, ...], Field(strict=False, min_length=1)]
    phi: bool = False
    template: File | None = None

    @model_validator(mode="after")
    def _logs_in_safely(self) -> MailChannelSettings:
        if bool(self.user) != (self.password_file is not None):
            raise ValueError("user and password_file go together")
        if self.user and not self.starttls:
            raise ValueError("user needs starttls = true: a password is never sent in clear")
        return self
