"""What stands for a subject in the audit log and on receipts: those outlive an erasure and must name nobody."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from functools import partial

from warehouse.core.keys import file_key, file_key_exists, keep_file_key
from warehouse.core.settings import Settings
from warehouse.privacy.audit_keys import AUDIT_KEY
from warehouse.privacy.subjects import canonical_subject

_LETTERS = "abcdefghijklmnop"
"""Sixteen of them: digits could look like a card number."""
_RETIRED = "audit_subject_v"


def subject_pseudonym(settings: Settings, subject: str) -> str:
    """`subject-…`: an HMAC under a key derived from the audit key. A canary, being nobody, is named as it is."""
    return pseudonymiser(settings)(subject)


def pseudonymiser(settings: Settings) -> Callable[[str], str]:
    """The same for many subjects: the key is read once."""
    return partial(_pseudonym, _key(settings))


def subject_pseudonyms(settings: Settings, subject: str) -> list[str]:
    """What stood for a subject before each rotation of the audit key, and what does now, last."""
    return [_pseudonym(key, subject) for key in (*_retired_keys(settings), _key(settings))]


def retire_pseudonym_key(settings: Settings) -> None:
    """Keep what pseudonyms are made with, before the audit key goes; safe to repeat.

    The key derived from it signs nothing: what was recorded of a subject before stays to be found, no more.
    """
    key, retired = _key(settings), _retired_keys(settings)
    if key not in retired:
        keep_file_key(settings, f"{_RETIRED}{len(retired) + 1}", base64.b64encode(key).decode("ascii"))


def _pseudonym(key: bytes, subject: str) -> str:
    if subject.lower().startswith("canary"):
        return subject
    digest = hmac.digest(key, canonical_subject(subject).encode(), "sha256")[:16]
    return "subject-" + "".join(_LETTERS[byte >> 4] + _LETTERS[byte & 15] for byte in digest)


def _key(settings: Settings) -> bytes:
    seed = base64.b64decode(file_key(settings, AUDIT_KEY))
    return hmac.digest(seed, b"warehouse audit subject v1", "sha256")


def _retired_keys(settings: Settings) -> list[bytes]:
    found: list[bytes] = []
    while file_key_exists(settings, name := f"{_RETIRED}{len(found) + 1}"):
        found.append(base64.b64decode(file_key(settings, name)))
    return found
