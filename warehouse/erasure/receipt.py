"""The receipt of an erasure: what was done, counted and proved, signed with the audit key. It names nobody.

When that key is rotated, every receipt whose signature holds is signed anew: who has the old key can make none then.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature

from warehouse.core.errors import WarehouseError
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.privacy.audit import signers_of
from warehouse.privacy.audit_keys import Signer
from warehouse.privacy.pseudonyms import subject_pseudonyms

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
    _save(path, receipt, signers_of(settings).current)
    return path


def receipts_of(settings: Settings, subject: str) -> list[Receipt]:
    """The receipts of one subject (canonical id), oldest first.

    Raises:
        WarehouseError: a receipt is not the one that was signed.
    """
    pseudonyms = subject_pseudonyms(settings, subject)
    return [receipt for receipt in all_receipts(settings) if receipt.subject in pseudonyms]


def all_receipts(settings: Settings) -> list[Receipt]:
    """Every receipt, checked against its signature, oldest first."""
    signers = signers_of(settings).all
    return [_checked(path, signers)[0] for path in _paths(settings)]


def sign_receipts_anew(settings: Settings) -> list[Path]:
    """Sign every receipt with the key that the audit log is to have; safe to repeat. Returns those it signed.

    Raises:
        WarehouseError: a receipt is not the one that was signed.
    """
    signers = signers_of(settings)
    signed = []
    for path in _paths(settings) if signers.pending else ():
        receipt, signer = _checked(path, signers.all)
        if signers.pending and signer != signers.pending:
            _save(path, receipt, signers.pending)
            signed.append(path)
    return signed


def _paths(settings: Settings) -> list[Path]:
    return sorted(receipt_path(settings, "x").parent.glob("erasure-*.json"))


def _checked(path: Path, signers: Sequence[Signer]) -> tuple[Receipt, Signer]:
    """A receipt and who has signed it."""
    try:
        data = json.loads(path.read_text(encoding="ascii"))
        receipt = Receipt(**data["receipt"])
        signature = base64.b64decode(data["signature"])
    except (ValueError, KeyError, TypeError):
        raise _changed(path) from None
    for signer in signers:
        with suppress(InvalidSignature):
            signer.public.verify(signature, _message(receipt))
            return receipt, signer
    raise _changed(path)


def _changed(path: Path) -> WarehouseError:
    return WarehouseError(
        f"the receipt {path.name} is not the one that was signed",
        kept="the file as it is",
        todo="restore it from your backup; the audit log tells when it was written",
    )


def _message(receipt: Receipt) -> bytes:
    return _DOMAIN + json.dumps(receipt.to_dict(), sort_keys=True, ensure_ascii=True).encode()


def _save(path: Path, receipt: Receipt, signer: Signer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    signature = base64.b64encode(signer.private.sign(_message(receipt))).decode()
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(json.dumps({"receipt": receipt.to_dict(), "signature": signature}, sort_keys=True, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
