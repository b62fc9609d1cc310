"""Keys: made once, 0600, read only where they are needed.

| key | opens | who reads it |
| --- | --- | --- |
| warehouse | the writer's database | dbt too, so it lives in `.env` as DBT_ENV_SECRET_WAREHOUSE_KEY |
| published | the readers' copy | publish, query, expectations |
| lake | the Parquet files of the lake | ingestion |
| vault | personal data and free text | ingestion, privacy |
| token_v1 | pseudonyms (HMAC-SHA256) | ingestion only: never in an environment that dbt sees |
| role_… | the export of one role, made with it | publish, query |
| audit | signs the audit log (Ed25519), keys the digests of statements | whoever records or verifies |
"""

from __future__ import annotations

import base64
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from warehouse.core.errors import ConfigurationError
from warehouse.core.paths import Home
from warehouse.core.settings import PROJECT_ROOT, Settings

KEY_BYTES = 32
WAREHOUSE_KEY_VARIABLE = "DBT_ENV_SECRET_WAREHOUSE_KEY"
FILE_KEYS = ("published", "lake", "vault", "token_v1", "audit")


def create_missing_keys(settings: Settings, env_file: Path = PROJECT_ROOT / ".env") -> list[str]:
    """Make every key that does not exist yet; an existing one is never replaced.

    Returns the names of the keys made. The caller reloads its settings when `warehouse` is among them.
    """
    made = []
    if settings.dbt_env_secret_warehouse_key is None:
        _append_secret(env_file, WAREHOUSE_KEY_VARIABLE, _fresh())
        made.append("warehouse")
    folder = Home.of(settings).keys
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in FILE_KEYS:
        path = folder / f"{name}.key"
        if not path.exists():
            _write_private(path, _fresh() + "\n")
            made.append(name)
    return made


def ensure_file_key(settings: Settings, name: str) -> None:
    """Make the key `name`, one that not every home needs, if it does not exist; an existing one is never replaced."""
    folder = Home.of(settings).keys
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(FileExistsError):
        _write_private(folder / f"{name}.key", _fresh() + "\n")


def warehouse_key(settings: Settings) -> str:
    """The key of the writer's database, base64 text."""
    secret = settings.dbt_env_secret_warehouse_key
    if secret is None or not secret.get_secret_value():
        raise ConfigurationError(
            f"{WAREHOUSE_KEY_VARIABLE} is not set",
            todo="run `make refresh`, which writes .env, or restore your .env",
        )
    return _checked(secret.get_secret_value(), WAREHOUSE_KEY_VARIABLE)


def file_key(settings: Settings, name: str) -> str:
    """The key `name` of FILE_KEYS, base64 text of 32 bytes. Missing, short or readable by others: refused."""
    path = Home.of(settings).keys / f"{name}.key"
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise ConfigurationError(
            f"the key file {path.name} is missing",
            todo="run `make refresh` on a new home, or restore the key from your backup",
        ) from None
    if mode & 0o077:
        raise ConfigurationError(f"the key file {path.name} can be read by others", todo=f"chmod 600 {path}")
    return _checked(text, path.name)


def _checked(text: str, name: str) -> str:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES:
        raise ConfigurationError(f"{name} is not base64 of {KEY_BYTES} bytes", todo="restore the key from your backup")
    return text


def _fresh() -> str:
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode("ascii")


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)


def _append_secret(env_file: Path, name: str, value: str) -> None:
    text = env_file.read_text(encoding="utf-8") if env_file.exists() else ""
    if text and not text.endswith("\n"):
        text += "\n"
    temporary = env_file.with_name(env_file.name + ".new")
    temporary.unlink(missing_ok=True)
    _write_private(temporary, f"{text}{name}={value}\n")
    temporary.replace(env_file)
