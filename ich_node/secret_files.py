"""Files that hold a secret, or that the node's trust rests on: read only where nobody else can read or change them."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from ich_node.credentials import secret_path
from ich_node.durable import sync_directory
from ich_node.errors import SecretFileError

_MORE_THAN_0640: Final = 0o037
_CHANGED_BY_OTHERS: Final = 0o022
_LARGEST_BYTES: Final = 1024 * 1024
_KEY_BYTES: Final = 32


def read_secret(path: Path | str) -> bytes:
    """Read a secret, whole; what was looked at is what is read.

    Raises:
        SecretFileError: it cannot be read, or others than its owner and group can read or change it.
    """
    return _read(secret_path(path), _MORE_THAN_0640, "others can read or change it; chmod 640, with the node's group")


def check_private(path: Path | str) -> Path:
    """Give the path of a secret for a library that reads by itself, once it was seen that nobody else can read it.

    Raises:
        SecretFileError: as of ``read_secret``.
    """
    found = secret_path(path)
    read_secret(found)
    return found


def read_trusted(path: Path) -> bytes:
    """Read what is no secret and must not be changed by others, such as the public key that models are checked with.

    Raises:
        SecretFileError: it cannot be read, or others than its owner can change it.
    """
    return _read(path, _CHANGED_BY_OTHERS, "others can change it; chmod 644")


def read_or_make_key(path: Path) -> bytes:
    """Read a key of the node's own; the first process that needs it makes it, with mode 0600, and all others get that.

    Raises:
        SecretFileError: as of ``read_secret``, or it cannot be made, or is no key.
    """
    try:
        if not path.exists():
            _make_key(path)
    except OSError as error:
        raise SecretFileError(path, f"cannot be made ({error.strerror})") from None
    key = read_secret(path)
    if len(key) != _KEY_BYTES:
        raise SecretFileError(path, "is damaged; delete it: links that were sent before end to work")
    return key


def _read(path: Path, unwanted: int, why: str) -> bytes:
    try:
        # not blocking: a pipe in the place of the file must not stop the start
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise SecretFileError(path, "is no file")
            _check_rights(path, about, unwanted, why)
            _check_folder(path)
            content = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise SecretFileError(path, f"cannot be read ({error.strerror})") from None
    if len(content) > _LARGEST_BYTES:
        raise SecretFileError(path, "is larger than 1 MiB")
    return content


def _check_rights(path: Path, about: os.stat_result, unwanted: int, why: str) -> None:
    if about.st_uid not in (0, os.geteuid()):
        raise SecretFileError(path, f"belongs to user {about.st_uid}; it must belong to root or to who runs the node")
    if about.st_mode & unwanted:
        raise SecretFileError(path, f"has mode {stat.S_IMODE(about.st_mode):04o}: {why}")


def _check_folder(path: Path) -> None:
    """Look at the folder in which the file really lies: who may rename there puts a file of his own in its place."""
    folder = path.resolve().parent
    mode = folder.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise SecretFileError(path, f"everybody can change its folder {folder}; chmod 755")


def _make_key(path: Path) -> None:
    """Make the whole file under another name, and name it last: a link to a name that exists fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(part)
    except FileExistsError:
        return
    finally:
        part.unlink(missing_ok=True)
    sync_directory(path.parent)
