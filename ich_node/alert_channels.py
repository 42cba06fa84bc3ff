"""The channels of a configuration, with their secrets and templates read and checked."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from ich_node.alert import AlertMessage, ChannelPatience, HL7Channel, MailChannel, WebhookChannel, check_template
from ich_node.alert.templates import HL7_TEMPLATE, MAIL_TEMPLATE
from ich_node.config import Config, HL7ChannelSettings, MailChannelSettings, WebhookChannelSettings
from ich_node.credentials import is_credential
from ich_node.errors import ConfigError, SecretFileError
from ich_node.secret_files import check_private, read_secret

_SHORTEST_SECRET: Final = 16
"""Bytes; a shorter key of an HMAC is guessed too easily."""


class Channel(Protocol):
    """What tells somebody."""

    def tell(self, message: AlertMessage) -> str:
        """Tell, and return what was answered; see the channels for the errors."""


def make_channels(config: Config, source: Path | str = "configuration") -> dict[str, Channel]:
    """Make every channel of a configuration, by name.

    Raises:
        ConfigError: every secret, certificate and template that cannot be used.
    """
    patience = ChannelPatience(config.alert.connect_timeout_s, config.alert.response_timeout_s)
    faults: list[str] = []
    channels: dict[str, Channel] = {one.name: _hl7(one, patience, faults) for one in config.alert_hl7}
    channels |= {one.name: _webhook(one, patience, faults) for one in config.alert_webhook}
    channels |= {one.name: _mail(one, patience, faults) for one in config.alert_mail}
    if faults:
        raise ConfigError(source, faults)
    return channels


def without_credentials(config: Config) -> Config:
    """Leave out the channels whose secrets are credentials: only the unit that delivers has those."""
    return config.model_copy(
        update={
            "alert_webhook": tuple(one for one in config.alert_webhook if not _uses(one.secret_file, one.client_key)),
            "alert_mail": tuple(one for one in config.alert_mail if not _uses(one.password_file)),
        }
    )


def _uses(*files: Path | None) -> bool:
    return any(one is not None and is_credential(one) for one in files)


def channel_places(config: Config) -> list[tuple[str, str, int]]:
    """List name, host and port of every channel."""
    places = [(one.name, one.host, one.port) for one in config.alert_hl7]
    places += [(one.name, one.host, one.port) for one in config.alert_mail]
    for one in config.alert_webhook:
        url = urlsplit(one.url)
        places.append((one.name, url.hostname or "", url.port or (443 if url.scheme == "https" else 80)))
    return places


def _hl7(settings: HL7ChannelSettings, patience: ChannelPatience, faults: list[str]) -> HL7Channel:
    channel = HL7Channel(patience=patience, **settings.model_dump(exclude={"name", "most_per_minute"}))
    if settings.template is not None:
        _note(faults, settings.name, check_template(settings.template, HL7_TEMPLATE, "hl7", channel.names))
    return channel


def _webhook(settings: WebhookChannelSettings, patience: ChannelPatience, faults: list[str]) -> WebhookChannel:
    secret = _secret(settings.name, "secret_file", settings.secret_file, faults)
    if 0 < len(secret) < _SHORTEST_SECRET:
        _note(faults, settings.name, f"secret_file {settings.secret_file}: shorter than {_SHORTEST_SECRET} bytes")
    key = _private(settings.name, "client_key", settings.client_key, faults)
    _check_certificates(settings.name, settings.ca_file, settings.client_certificate if key else None, key, faults)
    values = settings.model_dump(exclude={"name", "most_per_minute", "secret_file", "client_key"})
    return WebhookChannel(secret=secret, client_key=key, patience=patience, **values)


def _mail(settings: MailChannelSettings, patience: ChannelPatience, faults: list[str]) -> MailChannel:
    password = ""
    if settings.password_file is not None:
        secret = _secret(settings.name, "password_file", settings.password_file, faults)
        password = secret.decode("utf-8", "replace")
    _check_certificates(settings.name, settings.ca_file, None, None, faults)
    values = settings.model_dump(exclude={"name", "most_per_minute", "password_file"})
    channel = MailChannel(password=password, patience=patience, **values)
    if settings.template is not None:
        _note(faults, settings.name, check_template(settings.template, MAIL_TEMPLATE, "text", channel.names))
    return channel


def _secret(name: str, key: str, path: Path, faults: list[str]) -> bytes:
    """Read a secret without the line break that editors leave at its end."""
    try:
        secret = read_secret(path).rstrip(b"\r\n")
    except SecretFileError as error:
        _note(faults, name, f"{key} {error}")
        return b""
    if not secret:
        _note(faults, name, f"{key} {path}: is empty")
    return secret


def _private(name: str, key: str, path: Path | None, faults: list[str]) -> Path | None:
    """Give the file of a private key that a library reads by itself; None where there is none to be used."""
    try:
        return None if path is None else check_private(path)
    except SecretFileError as error:
        _note(faults, name, f"{key} {error}")
        return None


def _check_certificates(
    name: str, ca_file: Path | None, certificate: Path | None, key: Path | None, faults: list[str]
) -> None:
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        what = ", ".join(str(one) for one in (ca_file, certificate, key) if one is not None)
        _note(faults, name, f"certificates {what}: cannot be used ({error.strerror or type(error).__name__})")


def _note(faults: list[str], name: str, fault: str) -> None:
    if fault:
        faults.append(f"alert channel {name}: {fault}")
