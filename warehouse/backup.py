"""Backups, and their way back: what was erased since one was made does not come back with it.

A backup holds the warehouse, the lake on disk, the vault, dlt's positions and the signed records. What is made from
those is not in it, nor are keys: keep `.env` and `keys/` apart. An erasure goes through every backup it can reach; one
that it could not reach is erased from when it is restored, by the ledger of the warehouse that it replaces.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from ingestion.erasure import LEDGER, SUBJECT_DOMAIN
from ingestion.raw import create_raw_tables
from warehouse.core.backups import PART, as_home, backup_places, backup_root, verify_contents, write_contents
from warehouse.core.database import open_warehouse
from warehouse.core.errors import ConfigurationError, WarehouseError
from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import Settings
from warehouse.erasure import erase
from warehouse.exports import remove_exports
from warehouse.privacy.holds import HoldRow, all_holds, take_holds
from warehouse.privacy.tokens import pseudonym, token_key
from warehouse.privacy.vault import ALIAS, open_vault

PARTS = ("warehouse.duckdb", "lake", "vault", "dlt", "receipts", "breaches")
"""Of WAREHOUSE_HOME. The audit log is never set back."""
RECORDS = frozenset({"receipts", "breaches"})
MADE_FROM_THEM = ("published", "target", "site", "runs", "build_state.json")
"""Made anew by the next refresh; left as they are, they would tell of rows that are no longer there."""
RESTORE_TICKET = "RESTORE-1"
_ASIDE = "before-restore"


@dataclass(frozen=True)
class Restored:
    """What came back, and how many people were erased from it again."""

    backup: str
    erased: int


def back_up(settings: Settings) -> Path:
    """Make a backup; it exists when it is complete. The caller holds the writer's lock."""
    home = Home.of(settings).root
    if not Home.of(settings).warehouse.exists():
        raise ConfigurationError("there is nothing to back up yet", todo="run `warehouse refresh` first")
    place = backup_root(settings) / f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
    new = place.with_name(place.name + PART)
    new.mkdir(parents=True, mode=0o700)
    try:
        for name in PARTS:
            _copy(home / name, new / name)
        write_contents(new)
        new.rename(place)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise WarehouseError(
            f"the backup could not be written ({type(error).__name__})",
            kept="everything; the backups made before",
            todo="look for a full disk; then run this again",
        ) from None
    return place


def restore(settings: Settings, name: str, progress: Progress = silent) -> Restored:
    """Put a backup in place of the warehouse, without whom the ledger names. The caller holds the writer's lock.

    Killed, the same call goes on: what was there before stays beside it until the last of them is erased.

    Raises:
        ConfigurationError: there is no such backup.
        WarehouseError: it is damaged, or the ledger of today's warehouse cannot be read: nothing was restored.
        ErasureIncomplete: something of an erased person is still there.
    """
    place = backup_root(settings) / name
    if place not in backup_places(settings) or name.endswith(PART):
        raise ConfigurationError(f"there is no backup {name!r}", todo="`warehouse backups` lists them")
    verify_contents(place)
    home = Home.of(settings).root
    aside = home / _ASIDE
    _put_back(home, aside)
    ledger, held = _of_today(settings, aside)
    progress("restore: files")
    remove_exports(settings)
    if not aside.exists():
        moving = _moving(aside)
        moving.mkdir(exist_ok=True, mode=0o700)
        for part in (*MADE_FROM_THEM, *reversed(PARTS)):
            if (home / part).exists():
                (home / part).rename(moving / part)
        moving.rename(aside)
    for part in PARTS:
        _remove(home / part)
        # of what was done, that which was: it does not become undone
        _copy((aside if part in RECORDS else place) / part, home / part)
    _merge(settings, ledger)
    if held is not None:
        take_holds(settings, held)
    erased = 0
    for subject in _to_erase(settings):
        progress("restore: erasing again")
        erase(settings, subject, RESTORE_TICKET)
        erased += 1
    shutil.rmtree(aside)
    return Restored(name, erased)


def _moving(aside: Path) -> Path:
    return aside.with_name(aside.name + PART)


def _put_back(home: Path, aside: Path) -> None:
    """What was being moved aside when a restore was killed comes back: nothing had taken its place yet."""
    moving = _moving(aside)
    for path in sorted(moving.iterdir()) if moving.exists() else ():
        if not (home / path.name).exists():
            path.rename(home / path.name)


def _of_today(settings: Settings, aside: Path) -> tuple[list[tuple[object, ...]], list[HoldRow] | None]:
    """Who is erased, and who is held, by today's warehouse; of an interrupted restore, by the one before it."""
    if not aside.exists():
        return _known(settings)
    with as_home(settings, aside) as before:
        return _known(before)


def _known(settings: Settings) -> tuple[list[tuple[object, ...]], list[HoldRow] | None]:
    home = Home.of(settings)
    ledger = _entries(settings) if home.warehouse.exists() else []
    return ledger, all_holds(settings) if home.vault.exists() else None


def _entries(settings: Settings) -> list[tuple[object, ...]]:
    try:
        with open_warehouse(settings) as connection:
            create_raw_tables(connection)
            return connection.execute(f"select * from {LEDGER}").fetchall()
    except duckdb.Error as error:
        raise WarehouseError(
            f"the erasure ledger of the warehouse cannot be read ({type(error).__name__})",
            kept="the warehouse as it is; nothing was restored",
            todo="without it erased people would come back: move the damaged warehouse.duckdb away only if a newer "
            "backup holds its ledger, and restore that one",
        ) from None


def _merge(settings: Settings, ledger: list[tuple[object, ...]]) -> None:
    with open_warehouse(settings) as connection:
        create_raw_tables(connection)
        if ledger:
            marks = ", ".join("?" for _ in ledger[0])
            connection.execute(f"create temp table known as from {LEDGER} limit 0")
            connection.executemany(f"insert into known values ({marks})", [list(row) for row in ledger])
            connection.execute(f"insert into {LEDGER} from known except from {LEDGER}")


def _to_erase(settings: Settings) -> list[str]:
    """Subjects that the restored vault knows and the ledger names."""
    if not Home.of(settings).vault.exists():
        return []
    key = token_key(settings)
    with open_warehouse(settings, read_only=True) as connection:
        tokens = {
            token
            for row in connection.execute(f"select subject_token, subject from {LEDGER}").fetchall()
            for token in row
            if token is not None
        }
    with open_vault(settings) as vault:
        named = vault.execute(f"select distinct owner, subject from {ALIAS}.main.sealed_entry").fetchall()
    return sorted(
        {
            owner
            for owner, subject in named
            if {owner, subject, *(pseudonym(key, SUBJECT_DOMAIN, one) for one in (owner, subject) if one)} & tokens
        }
    )


def _copy(original: Path, copy: Path) -> None:
    if original.is_dir():
        shutil.copytree(original, copy, dirs_exist_ok=True)
    elif original.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(original, copy)
        descriptor = os.open(copy, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.with_name(path.name + ".wal").unlink(missing_ok=True)
