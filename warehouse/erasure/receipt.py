"""The receipt of an erasure: what was done, counted and proved, signed with the audit key. It names nobody."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from warehouse.core.errors import WarehouseError
from warehouse.core.keys import file_key
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.privacy.pseudonyms import subject_pseudonym

_DOMAIN = b"warehouse erasure receipt v1|"


@dataclass
class Receipt:
    """One erasure.

    Attributes:
        subject: a keyed pseudonym: who has the audit key can tell whether a receipt is of a given id.
        status: `proved` while the subject's key still exists, then `complete`.
        steps: step → what it counted.
        searched: channel → files, bytes, columns and rows that were searched for what was theirs.
        residual: findings; a receipt is written only when there are none.
    """

    id: str
    subject: str
    ticket: str
    status: str
    begun_at: str
    finished_at: str = ""
    seconds: float = 0.0
    steps: dict[str, dict[str, int]] = field(default_factory=dict)
    searched: dict[str, Any] = field(default_factory=dict)
    searched_for: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    residual: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def receipt_path(settings: Settings, erasure: str) -> Path:
    """Where a receipt lies."""
    return Home.of(settings).receipts / f"erasure-{erasure}.json"


def save_receipt(settings: Settings, receipt: Receipt) -> Path:
    """Write and sign it: 0600, whole or not at all."""
    path = receipt_path(settings, receipt.id)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    body = json.dumps(receipt.to_dict(), sort_keys=True, ensure_ascii=True)
    signature = base64.b64encode(_signer(settings).sign(_DOMAIN + body.encode())).decode()
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(json.dumps({"receipt": receipt.to_dict(), "signature": signature}, sort_keys=True, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    return path


def receipts_of(settings: Settings, subject: str) -> list[Receipt]:
    """The receipts of one subject (canonical id), oldest first.

    Raises:
        WarehouseError: a receipt is not the one that was signed.
    """
    pseudonym = subject_pseudonym(settings, subject)
    return [receipt for receipt in all_receipts(settings) if receipt.subject == pseudonym]


def all_receipts(settings: Settings) -> list[Receipt]:
    """Every receipt, checked against its signature, oldest first."""
    folder = receipt_path(settings, "x").parent
    found = []
    public = _signer(settings).public_key()
    for path in sorted(folder.glob("erasure-*.json")):
        try:
            data = json.loads(path.read_text(encoding="ascii"))
            receipt = Receipt(**data["receipt"])
            body = json.dumps(receipt.to_dict(), sort_keys=True, ensure_ascii=True)
            public.verify(base64.b64decode(data["signature"]), _DOMAIN + body.encode())
        except (ValueError, KeyError, TypeError, InvalidSignature):
            raise WarehouseError(
                f"the receipt {path.name} is not the one that was signed",
                kept="the file as it is",
                todo="restore it from your backup; the audit log tells when it was written",
            ) from None
        found.append(receipt)
    return found


def _signer(settings: Settings) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(file_key(settings, "audit")))
