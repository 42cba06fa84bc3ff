"""The certificate of the web pages, checked before it is used."""

from __future__ import annotations

import ssl
from pathlib import Path

from ich_node.config import Config
from ich_node.credentials import is_credential
from ich_node.errors import ConfigError, SecretFileError
from ich_node.secret_files import check_private


def check_certificate(config: Config, source: Path | str = "configuration") -> tuple[Path, Path] | None:
    """See whether certificate and key can be used, and give them; None where there are none to be used.

    Raises:
        ConfigError: they cannot, or others can read the key.
    """
    files = config.web.certificate_files
    if files is None or not config.web.enabled:
        return None
    try:
        key = check_private(files[1])
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files[0], key)
    except (OSError, ssl.SSLError, SecretFileError) as error:
        why = error.why if isinstance(error, SecretFileError) else error.strerror or type(error).__name__
        fault = f"web.certificate, web.key: {files[0]}, {files[1]} cannot be used ({why})"
        raise ConfigError(source, [fault]) from None
    return files[0], key


def key_is_credential(config: Config) -> bool:
    """Say whether only the unit of the pages has the key."""
    return is_credential(config.web.key)
