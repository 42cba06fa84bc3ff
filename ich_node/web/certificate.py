"""The certificate of the web pages, checked before it is used."""

from __future__ import annotations

import ssl
from pathlib import Path

from ich_node.config import Config
from ich_node.errors import ConfigError


def check_certificate(config: Config, source: Path | str = "configuration") -> None:
    """See whether certificate and key can be used, where there are any.

    Raises:
        ConfigError: they cannot.
    """
    files = config.web.certificate_files
    if files is None or not config.web.enabled:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*files)
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or type(error).__name__
        fault = f"web.certificate, web.key: {files[0]}, {files[1]} cannot be used ({why})"
        raise ConfigError(source, [fault]) from None
