"""Who signs the audit log when: one key after the other, each introduced by a record signed under the one before.

    {"seq":7,"prev":"…","rotates":{"from":"<public key>","to":"<public key>"},"record":{…},"sig":"<under `from`>"}

That record commits to all before it, as every record does. So whoever gets hold of today's key can still not change
what an earlier one has signed: it no longer exists, and the record that ends its time could not be signed again.
"""

from __future__ import annotations

import base64
import hashlib
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from warehouse.core.keys import PENDING, file_key, file_key_exists
from warehouse.core.settings import Settings

AUDIT_KEY = "audit"
_CLAIM = re.compile(rb'"rotates":\{"from":"([A-Za-z0-9+/]{43}=)","to":"([A-Za-z0-9+/]{43}=)"\},')


@dataclass(frozen=True)
class Signer:
    """A signing key in hand: the 32 bytes it is made from."""

    seed: bytes

    @property
    def private(self) -> Ed25519PrivateKey:
        """What signs."""
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def public(self) -> Ed25519PublicKey:
        """What verifies."""
        return self.private.public_key()


@dataclass(frozen=True)
class Signers:
    """The key of the log and, while a rotation is unfinished, the one it is to have."""

    current: Signer
    pending: Signer | None = None

    @property
    def all(self) -> tuple[Signer, ...]:
        """Both, the current one first."""
        return (self.current,) if self.pending is None else (self.current, self.pending)


@dataclass(frozen=True)
class KeyChange:
    """What a record says that introduces a key; both are public keys, 32 bytes."""

    sequence: int
    old: bytes
    new: bytes

    def claim(self) -> bytes:
        """How it stands in the record."""
        return b'"rotates":{"from":"%s","to":"%s"},' % (base64.b64encode(self.old), base64.b64encode(self.new))


class KeyRing:
    """The keys of a log in their order, and from which record on each of them signs.

    Args:
        changes: what the log says, in its order.
        last: the public key that must be in force at its end.
    """

    def __init__(self, changes: Sequence[KeyChange], last: bytes) -> None:
        self._changes = changes
        self._ends = [change.sequence for change in changes]
        self._keys = [*(change.old for change in changes), last]

    def key_of(self, sequence: int) -> Ed25519PublicKey:
        """The key under which this record has to be signed. The head that names it: that of the record after it."""
        return Ed25519PublicKey.from_public_bytes(self._keys[bisect_left(self._ends, sequence)])

    def breaks(self) -> list[str]:
        """Changes that do not follow from one another."""
        found = [
            f"record {after.sequence} ends a key that record {before.sequence} did not introduce"
            for before, after in zip(self._changes, self._changes[1:], strict=False)
            if before.new != after.old
        ]
        if self._changes and self._changes[-1].new != self._keys[-1]:
            found.append(f"record {self._ends[-1]} introduces a key that is not the one in keys/{AUDIT_KEY}.key")
        return found

    def fingerprints(self) -> tuple[str, ...]:
        """What people compare: 16 hex digits for each key, the oldest first."""
        return tuple(hashlib.sha256(key).hexdigest()[:16] for key in self._keys)


def load_signers(settings: Settings) -> Signers:
    """The key, or both keys, of the log. The caller holds its lock: a rotation ends under it, too.

    Raises:
        ConfigurationError: one is missing, short or readable by others.
    """
    pending = _signer(settings, AUDIT_KEY + PENDING) if file_key_exists(settings, AUDIT_KEY + PENDING) else None
    return Signers(_signer(settings, AUDIT_KEY), pending)


def key_change(line: bytes, start: int, sequence: int) -> KeyChange | None:
    """What record `sequence`, a good line, says of a new key at the place `start`, where that would stand."""
    found = _CLAIM.match(line, start)
    return KeyChange(sequence, base64.b64decode(found[1]), base64.b64decode(found[2])) if found else None


def _signer(settings: Settings, name: str) -> Signer:
    return Signer(base64.b64decode(file_key(settings, name)))
