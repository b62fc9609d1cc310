"""One-time codes (RFC 6238: HMAC-SHA1, six digits, thirty seconds), each accepted once.

A secret belongs to one account and the roles it was enrolled for; it lies in `keys/`, 0600, with the last step that was
used. A code of the step before or after is accepted, for clocks that differ. Five wrong ones close the account for
fifteen minutes.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock

from warehouse.core.errors import ConfigurationError
from warehouse.core.paths import Home
from warehouse.core.settings import Settings

STEP_SECONDS, DIGITS, SKEW = 30, 6, 1
SECRET_BYTES = 20
MAX_FAILURES, CLOSED_SECONDS = 5, 900

_ACCOUNT = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass
class Enrolment:
    """One account's secret and what was made of it."""

    secret: str
    roles: list[str]
    last_step: int = -1
    failures: int = 0
    closed_until: float = 0.0


def code_at(secret: bytes, step: int) -> str:
    """The code of one step (RFC 4226, 5.3)."""
    digest = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 0xF
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return str(number % 10**DIGITS).zfill(DIGITS)


def enrol(settings: Settings, account: str, roles: Sequence[str]) -> str:
    """Make an account's secret; returns the address for an authenticator, which is shown once.

    Raises:
        ConfigurationError: the account is enrolled already.
    """
    path = _path(settings, account)
    secret = base64.b32encode(secrets.token_bytes(SECRET_BYTES)).decode()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigurationError(
            f"the account {account} is enrolled already",
            todo=f"remove keys/{path.name} after checking who asks, then enrol again",
        ) from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        json.dump(asdict(Enrolment(secret, list(roles))), file)
    return f"otpauth://totp/payments-warehouse:{quote(account)}?secret={secret}&issuer=payments-warehouse"


def demand_code(
    settings: Settings, account: str, role: str, code: str, *, clock: Callable[[], float] = time.time
) -> str | None:
    """What is wrong with a code, None when it is right; a right one is used up.

    Raises:
        ConfigurationError: the account is not enrolled, or its file can be read by others or not at all.
    """
    path = _path(settings, account)
    with FileLock(path.with_suffix(".lock"), timeout=10, mode=0o600):
        enrolment = _load(path, account)
        now = clock()
        if enrolment.closed_until > now:
            return "too many wrong codes: the account is closed for a quarter of an hour"
        if role not in enrolment.roles:
            return f"the account {account} is not enrolled for the role {role}"
        problem = _judge(enrolment, code, int(now // STEP_SECONDS))
        if problem is not None:
            enrolment.failures += 1
            if enrolment.failures >= MAX_FAILURES:
                enrolment.failures, enrolment.closed_until = 0, now + CLOSED_SECONDS
        _save(path, enrolment)
        return problem


def _judge(enrolment: Enrolment, code: str, now: int) -> str | None:
    secret = base64.b32decode(enrolment.secret)
    matching = [
        step for step in range(now - SKEW, now + SKEW + 1) if hmac.compare_digest(code_at(secret, step), code.strip())
    ]
    if not matching:
        return "the code is wrong or has expired"
    if matching[-1] <= enrolment.last_step:
        return "the code was used before"
    enrolment.last_step, enrolment.failures = matching[-1], 0
    return None


def _path(settings: Settings, account: str) -> Path:
    if not _ACCOUNT.fullmatch(account):
        raise ConfigurationError("an account's name is letters, digits, _, - and .", todo="run this as another account")
    return Home.of(settings).keys / f"totp_{account}.json"


def _load(path: Path, account: str) -> Enrolment:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigurationError(f"{path.name} can be read by others", todo=f"chmod 600 {path}")
        return Enrolment(**json.loads(path.read_text(encoding="ascii")))
    except FileNotFoundError:
        raise ConfigurationError(
            f"the account {account} is not enrolled", todo="`warehouse privacy enrol --role …` as this account"
        ) from None
    except (ValueError, TypeError):
        raise ConfigurationError(f"{path.name} cannot be read", todo="restore it, or enrol anew") from None


def _save(path: Path, enrolment: Enrolment) -> None:
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        json.dump(asdict(enrolment), file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
