"""A key for each subject, and what is sealed under it: destroying the key destroys the values, wherever copies lie.

AES-256-GCM throughout. A subject's key is random, never derived: it exists only in the vault, wrapped under a key that
is derived (HKDF) from the vault's. Each value has a nonce of its own, and is bound to its owner and its place, so that
a sealed value moved to another row, path or subject does not open.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from warehouse.core.errors import WarehouseError
from warehouse.core.keys import file_key
from warehouse.core.settings import Settings

KEY_BYTES, NONCE_BYTES = 32, 12
_SEPARATOR = "\x1f"


class VaultDamaged(WarehouseError):
    """A key or a value of the vault does not open: it was changed, moved, or belongs to another vault."""

    exit_code = 12


def wrapping_key(settings: Settings) -> AESGCM:
    """What subject keys are wrapped under. Raises ConfigurationError when the vault's key is missing or short."""
    return wrapping_key_of(file_key(settings, "vault"))


def wrapping_key_of(vault_key: str) -> AESGCM:
    """The same for a key of the vault in hand, base64 text: the old and the new one of a rotation."""
    info = b"warehouse vault subject keys v1"
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(base64.b64decode(vault_key)))


def wrapped_anew(old: AESGCM, new: AESGCM, wrapped: Mapping[str, bytes]) -> dict[str, bytes]:
    """Owner → the same key under another wrapping key. Raises VaultDamaged."""
    return {owner: _seal(new, _open(old, key, _key_place(owner)), _key_place(owner)) for owner, key in wrapped.items()}


def new_keys(wrapping: AESGCM, owners: Sequence[str]) -> list[bytes]:
    """A fresh wrapped key for each owner, in their order."""
    return [_seal(wrapping, os.urandom(KEY_BYTES), _key_place(owner)) for owner in owners]


def open_keys(wrapping: AESGCM, wrapped: Mapping[str, bytes]) -> dict[str, AESGCM]:
    """Owner → key, unwrapped. Raises VaultDamaged."""
    return {owner: AESGCM(_open(wrapping, key, _key_place(owner))) for owner, key in wrapped.items()}


def seal_values(
    keys: Mapping[str, AESGCM], owners: Iterable[str], places: Iterable[str], values: Iterable[str]
) -> list[bytes]:
    """Seal each value under its owner's key, bound to its place; three sequences of one length."""
    return [
        _seal(keys[owner], value.encode("utf-8", "surrogatepass"), place)
        for owner, place, value in zip(owners, places, values, strict=True)
    ]


def open_value(key: AESGCM, sealed: bytes, place: str) -> str:
    """What `seal_values` sealed. Raises VaultDamaged."""
    return _open(key, sealed, place).decode("utf-8", "surrogatepass")


def place_of(owner: str, source: str, table: str, row_key: str, path: str) -> str:
    """What a value is bound to. Not to its token, which becomes another one when the tokens' key does."""
    return _SEPARATOR.join((owner, source, table, row_key, path))


def _key_place(owner: str) -> str:
    return f"key{_SEPARATOR}{owner}"


def _seal(key: AESGCM, content: bytes, bound_to: str) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + key.encrypt(nonce, content, bound_to.encode())


def _open(key: AESGCM, sealed: bytes, bound_to: str) -> bytes:
    try:
        return key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to.encode())
    except (InvalidTag, ValueError):
        raise VaultDamaged(
            "the vault is damaged: a key or a value in it does not open",
            kept="the vault as it is; nothing was revealed",
            todo="restore vault/ and keys/vault.key, which belong together, from your backup",
        ) from None
