"""Keys: made once, 0600, read only where they are needed.

| key | opens | who reads it |
| --- | --- | --- |
| warehouse | the writer's database | dbt too, so it lives in `.env` as DBT_ENV_SECRET_WAREHOUSE_KEY |
| published | the readers' copy | publish, query, expectations |
| lake | the Parquet files of the lake | ingestion |
| vault | personal data and free text | ingestion, privacy |
| token_v1, … | pseudonyms (HMAC-SHA256), a key per rotation | ingestion only: never in an environment that dbt sees |
| role_… | the export of one role, made with it | publish, query |
| audit | signs the audit log and receipts (Ed25519), keys the digests of statements | whoever records or verifies |
| audit_subject_v1, … | what stood for a subject in log and receipts before a rotation of that key | erasure |
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
TOKEN_KEY = "token"  # noqa: S105  # a name
"""Stem of the key's name: token_v1, token_v2, …"""
TOKEN_SHAPE = "v[0-9]{1,4}:[0-9a-f]{64}"  # noqa: S105  # a shape
"""What a pseudonym looks like, a regular expression: the version of its key, its HMAC-SHA256."""
WAREHOUSE_KEY_VARIABLE = "DBT_ENV_SECRET_WAREHOUSE_KEY"
PENDING = ".new"
"""Ends the name of a key that a rotation is moving things to."""
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
    keep_file_key(settings, name, _fresh())


def keep_file_key(settings: Settings, name: str, key: str) -> None:
    """Make `key`, base64 text, the key `name`: whole or not at all, durably, and only if there is none yet."""
    folder = Home.of(settings).keys
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = folder / f"{name}.{os.getpid()}.part"
    part.unlink(missing_ok=True)
    _write_private(part, key + "\n")
    with suppress(FileExistsError):
        os.link(part, folder / f"{name}.key")
    part.unlink()
    _sync(folder)


def file_key_exists(settings: Settings, name: str) -> bool:
    """Whether there is a key of this name."""
    return (Home.of(settings).keys / f"{name}.key").exists()


def warehouse_key(settings: Settings) -> str:
    """The key of the writer's database, base64 text."""
    secret = settings.dbt_env_secret_warehouse_key
    if secret is None or not secret.get_secret_value():
        raise ConfigurationError(
            f"{WAREHOUSE_KEY_VARIABLE} is not set",
            todo="run `make refresh`, which writes .env, or restore your .env",
        )
    return _checked(secret.get_secret_value(), WAREHOUSE_KEY_VARIABLE)


def newest_version(settings: Settings, stem: str) -> int:
    """The highest N for which there is a key `<stem>_vN`; 1 when there is none.

    Raises:
        ConfigurationError: a rotation was interrupted.
    """
    refuse_interrupted(settings)
    return key_versions(settings, stem)[-1]


def key_versions(settings: Settings, stem: str) -> list[int]:
    """Every N for which there is a key `<stem>_vN`, in order; the first alone when there is none."""
    names = [path.stem.removeprefix(f"{stem}_v") for path in Home.of(settings).keys.glob(f"{stem}_v*.key")]
    return sorted(int(number) for number in names if number.isdigit()) or [1]


def refuse_interrupted(settings: Settings) -> None:
    """Raise ConfigurationError when a rotation was interrupted: some of what its key opens is under the old one."""
    for path in sorted(Home.of(settings).keys.glob(f"*{PENDING}.key")):
        raise ConfigurationError(
            f"a rotation of the key {path.name.removesuffix(f'{PENDING}.key')} was interrupted",
            kept="everything, part of it under the old key and part under the new",
            todo="run the same `warehouse privacy rotate-…` again: it goes on where it stopped",
        )


def begin_rotation(settings: Settings, name: str) -> str:
    """The key that `name` is to become, made if an interrupted rotation has not made it; base64 text."""
    ensure_file_key(settings, f"{name}{PENDING}")
    return file_key(settings, f"{name}{PENDING}")


def rotated_warehouse_key(settings: Settings, key: str, env_file: Path = PROJECT_ROOT / ".env") -> None:
    """Write the new key of the writer's database into `.env`, in the place of the old one.

    Raises:
        ConfigurationError: `.env` is not where the key comes from.
    """
    old = f"{WAREHOUSE_KEY_VARIABLE}={warehouse_key(settings)}"
    lines = demand_warehouse_key_in(env_file, settings)
    text = "\n".join(f"{WAREHOUSE_KEY_VARIABLE}={key}" if line == old else line for line in lines)
    _replace_private(env_file, text + "\n")


def demand_warehouse_key_in(env_file: Path, settings: Settings) -> list[str]:
    """The lines of `.env`; ConfigurationError when the key of the writer's database does not come from there."""
    lines = env_file.read_text(encoding="utf-8").splitlines() if env_file.exists() else []
    if f"{WAREHOUSE_KEY_VARIABLE}={warehouse_key(settings)}" not in lines:
        raise ConfigurationError(
            f"{WAREHOUSE_KEY_VARIABLE} does not come from {env_file.name}, so it cannot be replaced there",
            todo="put the key into .env and take it out of the environment; then run this again",
        )
    return lines


def end_rotation(settings: Settings, name: str) -> None:
    """The new key takes the place of the old one, which is gone with that. Call when nothing needs the old one."""
    folder = Home.of(settings).keys
    (folder / f"{name}{PENDING}.key").replace(folder / f"{name}.key")
    _sync(folder)


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
        file.flush()
        os.fsync(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _append_secret(env_file: Path, name: str, value: str) -> None:
    text = env_file.read_text(encoding="utf-8") if env_file.exists() else ""
    if text and not text.endswith("\n"):
        text += "\n"
    _replace_private(env_file, f"{text}{name}={value}\n")


def _replace_private(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    _write_private(temporary, text)
    temporary.replace(path)
