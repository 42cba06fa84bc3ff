"""The section of the configuration that says where images and results lie."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from ich_node.config.values import PositiveSeconds, Section, is_host

_BUCKET: Final = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_URL: Final = re.compile(rf"s3://(?P<bucket>{_BUCKET})(/(?P<prefix>[A-Za-z0-9!_.*'()/-]*))?")
_LONGEST_PREFIX: Final = 200


def _url(value: str) -> str:
    found = _URL.fullmatch(value)
    if value and (found is None or len(found["prefix"] or "") > _LONGEST_PREFIX or "//" in (found["prefix"] or "")):
        raise ValueError("must be empty (folders of this machine) or s3://BUCKET or s3://BUCKET/PREFIX")
    return value


def _endpoint(value: str) -> str:
    try:
        parts = urlsplit(value)
        well = parts.scheme in ("http", "https") and is_host(parts.hostname or "") and parts.port != 0
        bare = not (parts.username or parts.password or parts.query or parts.fragment) and parts.path in ("", "/")
    except ValueError:  # a port beyond 65535, a bracket without its end
        well, bare = False, False
    if value and not (well and bare):
        raise ValueError("must be empty (Amazon's) or https://HOST:PORT, with nothing else in it")
    return value.rstrip("/")


@dataclass(frozen=True, slots=True)
class BucketName:
    """Where in an object store the files of the node lie."""

    bucket: str
    prefix: str
    """Empty, or with a slash at its end."""


class StorageSettings(Section):
    """``[storage]``: where received images and results lie."""

    url: Annotated[str, AfterValidator(_url)] = ""
    endpoint: Annotated[str, AfterValidator(_endpoint)] = ""
    tls: bool = True
    ca_file: str = ""
    region: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9-]+$")] = "us-east-1"
    access_key: Annotated[str, Field(max_length=128, pattern=r"^[!-~]*$")] = ""
    secret_key_file: str = ""
    request_timeout_s: PositiveSeconds = 10
    give_up_s: PositiveSeconds = 15
    cache_mib: Annotated[int, Field(ge=64)] = 2048

    @model_validator(mode="after")
    def _can_be_used(self) -> StorageSettings:
        if not self.url:
            return self
        if not (self.access_key and self.secret_key_file):
            raise ValueError("url needs access_key and secret_key_file")
        if self.tls and self.endpoint.startswith("http://"):
            raise ValueError("endpoint is without TLS; where images may travel in clear, say tls = false")
        return self

    @property
    def place(self) -> BucketName | None:
        """The bucket; None where everything lies in folders of this machine."""
        found = _URL.fullmatch(self.url)
        if found is None:
            return None
        prefix = (found["prefix"] or "").strip("/")
        return BucketName(found["bucket"], f"{prefix}/" if prefix else "")
