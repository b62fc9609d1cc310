"""What stands for a subject in the audit log and on receipts: those outlive an erasure and must name nobody."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable

from warehouse.core.keys import file_key
from warehouse.core.settings import Settings
from warehouse.privacy.subjects import canonical_subject

_LETTERS = "abcdefghijklmnop"
"""Sixteen of them: digits could look like a card number."""


def subject_pseudonym(settings: Settings, subject: str) -> str:
    """`subject-…`: an HMAC under a key derived from the audit key. A canary, being nobody, is named as it is."""
    return subject_pseudonyms(settings)(subject)


def subject_pseudonyms(settings: Settings) -> Callable[[str], str]:
    """The same for many subjects: the key is read once."""
    seed = base64.b64decode(file_key(settings, "audit"))
    key = hmac.digest(seed, b"warehouse audit subject v1", "sha256")

    def pseudonym(subject: str) -> str:
        if subject.lower().startswith("canary"):
            return subject
        digest = hmac.digest(key, canonical_subject(subject).encode(), "sha256")[:16]
        return "subject-" + "".join(_LETTERS[byte >> 4] + _LETTERS[byte & 15] for byte in digest)

    return pseudonym
