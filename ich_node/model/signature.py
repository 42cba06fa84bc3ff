"""Who vouches for a model: an Ed25519 signature (RFC 8032) over its manifest, which names the hash of every other file.

The signature is the 64 bytes alone, so that openssl can make and check it as well. ``cryptography`` is imported where
it is used: a machine that only trains has none.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ich_node.errors import ModelError
from ich_node.records import MODEL_SIGNATURE
from ich_node.secret_files import read_secret, read_trusted

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE: Final = MODEL_SIGNATURE
NOT_SIGNED: Final = "not signed"
NOT_CHECKED: Final = "signed, not checked"
"""There is a signature, and no public key to check it with."""


def sign(manifest: bytes, key_file: Path) -> bytes:
    """Sign the bytes of a manifest.

    Raises:
        ModelError: the key is none of Ed25519, or has a passphrase.
        SecretFileError: others can read it.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(read_secret(key_file), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ModelError(f"{key_file}: no private key of Ed25519 in PEM without a passphrase") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ModelError(f"{key_file}: a private key, but not of Ed25519")
    return key.sign(manifest)


def check_signature(manifest: bytes, signature: bytes | None, public_key_file: Path | None, where: Path) -> str:
    """Check the signature of a manifest, and say in words what came of it.

    Args:
        manifest: the very bytes that are then parsed.
        signature: None where the bundle has none.
        public_key_file: None where the site demands no signature.
        where: the bundle lies, for the text of an error.

    Returns:
        ``signed by`` and the beginning of the SHA-256 of the public key, or that nothing was checked.

    Raises:
        ModelError: a public key is given, and the bundle is not signed, or not with its private key.
        SecretFileError: the public key cannot be read, or others can change it.
    """
    if public_key_file is None:
        return NOT_SIGNED if signature is None else NOT_CHECKED
    from cryptography.exceptions import InvalidSignature

    key = _public_key(public_key_file)
    if signature is None:
        raise ModelError(f"{where}: the bundle is not signed, and a public key demands it; restore {SIGNATURE}")
    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        raise ModelError(
            f"{where}: the signature is not that of {public_key_file} on this manifest: it was altered, or somebody "
            "else signed it; restore the model folder"
        ) from None
    return f"signed by {fingerprint_of(key)}"


def fingerprint_of(key: Ed25519PublicKey) -> str:
    """Give the first 16 digits of the SHA-256 of a public key as DER, for people to compare."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:16]


def _public_key(path: Path) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(read_trusted(path))
    except (ValueError, UnsupportedAlgorithm):
        raise ModelError(f"{path}: no public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ModelError(f"{path}: a public key, but not of Ed25519")
    return key
