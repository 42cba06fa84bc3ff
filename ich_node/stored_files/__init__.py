"""Where received images and results lie: folders of this machine, or a bucket of an object store."""

from __future__ import annotations

import hashlib
import socket
from functools import lru_cache
from pathlib import Path
from typing import Final

from ich_node.config import BucketName, Config, StorageSettings
from ich_node.errors import ConfigError, SecretFileError
from ich_node.secret_files import read_secret
from ich_node.stored_files.bucket import BucketFiles
from ich_node.stored_files.copies import LocalCopies
from ich_node.stored_files.files import FoundFile, StoredFiles
from ich_node.stored_files.local import LocalFiles
from ich_node.stored_files.s3 import Bucket, Place

__all__ = ["BucketFiles", "FoundFile", "LocalFiles", "StoredFiles", "mark_of_host", "stored_files"]

COPIES: Final = "cache/objects"
"""In the host's folder: copies of what lies in a bucket."""
_MEBIBYTE: Final = 1024 * 1024


def stored_files(config: Config) -> StoredFiles:
    """Give the files of a node; all of a process share the connections to an object store.

    Raises:
        SecretFileError: the secret of the object store cannot be read, or others can read it.
        ConfigError: the file of authorities is not there.
    """
    return _files_of(config.storage, config.state_directory, config.host_directory, mark_of_host(config))


def mark_of_host(config: Config) -> str:
    """Give what the names of images end with that this host writes; empty where there is no other host."""
    if not config.has_several_hosts:
        return ""
    return f"-{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]}"


@lru_cache(maxsize=4)
def _files_of(settings: StorageSettings, state_directory: Path, host_directory: Path, mark: str) -> StoredFiles:
    name = settings.place
    if name is None:
        return LocalFiles(state_directory, mark)
    copies = LocalCopies(host_directory / COPIES, settings.cache_mib * _MEBIBYTE)
    return BucketFiles(Bucket(_place(settings, name)), state_directory, copies, mark)


def _place(settings: StorageSettings, name: BucketName) -> Place:
    if settings.ca_file and not Path(settings.ca_file).is_file():
        raise ConfigError("[storage]", [f"ca_file = {settings.ca_file}: no such file"])
    return Place(
        bucket=name.bucket,
        prefix=name.prefix,
        endpoint=settings.endpoint,
        region=settings.region,
        access_key=settings.access_key,
        secret_key=_secret(settings.secret_key_file),
        ca_file=settings.ca_file,
        request_timeout_s=settings.request_timeout_s,
        give_up_s=settings.give_up_s,
    )


def _secret(file: str) -> str:
    """Read the secret key: one line of ASCII.

    Raises:
        SecretFileError: it cannot be read, or is none.
    """
    secret = read_secret(file).strip()
    if not secret or not secret.isascii() or b"\n" in secret:
        raise SecretFileError(file, "must hold the secret key alone, in one line")
    return secret.decode("ascii")
