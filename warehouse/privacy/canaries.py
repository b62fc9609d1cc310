"""Canaries: personal data of nobody, one value per class, planted in sources and searched for in everything produced.

They are drawn from ranges set apart for fiction and documentation (RFC 5737, RFC 2606, reserved phone numbers), so that
they can neither reach a person nor come from one.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from urllib.parse import quote

CANARIES: dict[str, str] = {
    "name": "Zwenolda Quistörpf-Kanari",
    "email": "zwenolda.quistorpf@kanari-falle.example",
    "phone": "+49305550172839",
    "birth_date": "1904-02-29",
    "card_number": "4929907741683052",
    "iban": "DE02999999990172839465",
    "ip_address": "203.0.113.217",
    "street_address": "Kanarienweg 7719, Nirgendshausen",
    "postal_code": "99977-KNRI",
    "coordinates": "-48.876667,-123.393333",
    "national_id": "999-77-0172-KNRI",
    "device_fingerprint": "fp-kanari-7c19e0d2b8",
}
"""Class → the value that must be found nowhere. A comment, a stack trace and a nested document may hold several."""

ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "upper": str.upper,
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "hex": lambda value: value.encode().hex(),
    "url": lambda value: quote(value, safe=""),
    "utf-16": lambda value: base64.b64encode(value.encode("utf-16-le")).decode(),
    "json": lambda value: "".join(f"\\u{ord(character):04x}" for character in value),
    "packed": lambda value: base64.b64encode(gzip.compress(value.encode(), mtime=0)).decode(),
}
"""Encoding → how a value is spelled in a source that holds text: PostgreSQL takes no NUL, so UTF-16 comes as base64."""


def planted() -> dict[tuple[str, str], str]:
    """(class, encoding) → the text to plant: every class of personal data in every encoding."""
    return {(name, how): spell(value) for name, value in CANARIES.items() for how, spell in ENCODINGS.items()}


def free_text() -> str:
    """A message as people write it: every canary in one text."""
    return "Please call me back: " + "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in CANARIES.items())
