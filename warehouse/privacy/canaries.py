"""Canaries: personal data of nobody, one value per class, planted in sources and searched for in everything produced.

They are drawn from ranges set apart for fiction and documentation (RFC 5737, RFC 2606, reserved phone numbers), so that
they can neither reach a person nor come from one.
"""

from __future__ import annotations

CANARIES: dict[str, str] = {
    "name": "Zwenolda Quistörpf-Kanari",
    "email": "zwenolda.quistorpf@kanari-falle.example",
    "phone": "+49305550172839",
    "birth_date": "1899-02-27",
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


def free_text() -> str:
    """A message as people write it: every canary in one text."""
    return "Please call me back: " + "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in CANARIES.items())
