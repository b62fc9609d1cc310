"""New keys for what lies on disk: `warehouse privacy rotate-key`.

| key | what is written anew |
| --- | --- |
| warehouse | the writer's database; the key goes into `.env` |
| vault | the vault |
| published | the published copy, made again from the warehouse |
| lake | every sealed Parquet file, and the dropped files that were put aside |
| audit | nothing: a record under the old key introduces the new one; receipts are signed anew |
| role_… | the exports, made again when they are asked for |

On S3 the store has the keys: there each object of the lake is written anew in its place, which gives it a data key of
its own from the store's key of now. What lies on disk under the lake's key, too, gets a new one of ours.

The new file is complete before it takes the place of the old one, and the old key goes last: killed anywhere, running
the same command again ends it, and until then nothing else that writes runs. What was copied elsewhere before (a
backup, a stolen file) still opens with the old key: that is what to think of when a key has leaked.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from ingestion.compaction import settle_all
from ingestion.lake import Lake, LakePath, SealedLoad, parts_sql, write_part
from ingestion.schema import all_tables
from ingestion.sources.files.drops import ASIDE, SEALED, drops_folder
from warehouse.core.database import attach, blank_connection, open_warehouse
from warehouse.core.errors import ConfigurationError, WarehouseError
from warehouse.core.keys import (
    PENDING,
    begin_rotation,
    demand_warehouse_key_in,
    end_rotation,
    file_key,
    rotated_warehouse_key,
    warehouse_key,
)
from warehouse.core.objects import ObjectPath
from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import PROJECT_ROOT, Settings
from warehouse.erasure.receipt import all_receipts, sign_receipts_anew
from warehouse.privacy.audit import end_old_key, introduce_key
from warehouse.privacy.ocsf import Actor
from warehouse.privacy.pseudonyms import retire_pseudonym_key
from warehouse.privacy.vault import wrap_keys_anew
from warehouse.publish import publish

NAMES = ("warehouse", "vault", "published", "lake", "audit", "roles")
"""What can be rotated here; pseudonyms have a command of their own."""

_NEW_LAKE_KEY = "lake_new"
_REWRITTEN = ".rekeyed.parquet"


@dataclass(frozen=True)
class Rotated:
    """What one rotation wrote anew."""

    key: str
    files: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return dict(vars(self))


def rotate_file_key(
    settings: Settings, name: str, progress: Progress = silent, *, env_file: Path = PROJECT_ROOT / ".env"
) -> Rotated:
    """Write what the key opens anew under a new one. The caller holds the writer's lock, with `rotates`.

    Raises:
        ConfigurationError: there is no such key, it lies where it cannot be replaced, or nothing opens with it.
        WarehouseError: the copy is not what the original was; the original stays.
    """
    progress(f"{name}: a new key")
    home = Home.of(settings)
    match name:
        case "warehouse":
            demand_warehouse_key_in(env_file, settings)
            return _database(name, home.warehouse, warehouse_key(settings), settings, env_file)
        case "vault":
            return _database(name, home.vault, file_key(settings, "vault"), settings, env_file)
        case "published":
            return _published(settings, progress)
        case "lake":
            return _lake(settings, progress)
        case "audit":
            return _audit(settings)
        case "roles":
            return _roles(home)
        case _:
            raise ConfigurationError(f"there is no key {name!r} to rotate", todo=f"use one of {', '.join(NAMES)}")


def _database(name: str, path: Path, old: str, settings: Settings, env_file: Path) -> Rotated:
    """A database copied into a new file under a new key, compared, and swapped in."""
    new = begin_rotation(settings, name)
    if not _opens(settings, path, new):  # or else it was killed between the swap and the end
        copy = path.with_name(path.name + ".rekeyed")
        _remove(copy)
        connection = blank_connection(settings)
        try:
            attach(connection, path, "old_file", old)
            attach(connection, copy, "new_file", new)
            connection.execute("checkpoint old_file")
            connection.execute("copy from database old_file to new_file")
            if _tables(connection, "old_file") != _tables(connection, "new_file"):
                raise WarehouseError(
                    f"the copy of {path.name} does not hold what the original does",
                    kept="the original, under the old key",
                    todo="run this again; if it repeats, check the disk",
                )
            if name == "vault":
                wrap_keys_anew(connection, "new_file", old, new)
            connection.execute("detach old_file")
            connection.execute("detach new_file")
        finally:
            connection.close()
        copy.chmod(0o600)
        _sync(copy)
        copy.replace(path)
        _sync(path.parent)
    if name == "warehouse":
        rotated_warehouse_key(settings, new, env_file)
        (Home.of(settings).keys / f"{name}{PENDING}.key").unlink()
    else:
        end_rotation(settings, name)
    return Rotated(name, 1, path.stat().st_size)


def _opens(settings: Settings, path: Path, key: str) -> bool:
    connection = blank_connection(settings)
    try:
        attach(connection, path, "tried", key, read_only=True)
    except ConfigurationError:
        return False
    finally:
        connection.close()
    return True


def _tables(connection: duckdb.DuckDBPyConnection, database: str) -> dict[str, Any]:
    """Every table with a count and a checksum of its rows, every view with its columns."""
    found: dict[str, Any] = {}
    tables = connection.execute(
        "select schema_name, table_name from duckdb_tables() where database_name = ?", [database]
    ).fetchall()
    for schema, table in tables:
        found[f"{schema}.{table}"] = connection.execute(
            f'select count(*), bit_xor(hash(t)), sum(hash(t)) from {database}."{schema}"."{table}" as t'
        ).fetchone()
    views = connection.execute(
        "select schema_name, view_name from duckdb_views() where database_name = ? and not internal", [database]
    ).fetchall()
    return found | {f"{schema}.{view}": "view" for schema, view in views}


def _published(settings: Settings, progress: Progress) -> Rotated:
    """The published copy is made again, so that nothing has to be read with the old key."""
    begin_rotation(settings, "published")
    path = Home.of(settings).published
    if path.exists():
        publish(settings, progress, key=f"published{PENDING}")
    end_rotation(settings, "published")
    return Rotated("published", int(path.exists()), path.stat().st_size if path.exists() else 0)


def _roles(home: Home) -> Rotated:
    """Every role's export and its key go; `query --role` and the next publish make them anew."""
    keys = sorted(home.keys.glob("role_*.key"))
    for key in keys:
        key.unlink()  # first: without it the file is noise
        for path in home.role_export(key.stem.removeprefix("role_")).parent.glob(f"{key.stem.removeprefix('role_')}.*"):
            if path.suffix in {".duckdb", ".stamp"}:
                path.unlink()
    return Rotated("roles", len(keys), 0)


def _audit(settings: Settings) -> Rotated:
    """The key that signs: the log goes on under the new one, and whoever has the old one can sign nothing more."""
    all_receipts(settings)  # one that cannot be signed anew is told before anything changes
    introduce_key(settings, actor=Actor.current())
    retire_pseudonym_key(settings)
    receipts = sign_receipts_anew(settings)
    end_old_key(settings)
    return Rotated("audit", len(receipts), sum(path.stat().st_size for path in receipts))


def _lake(settings: Settings, progress: Progress) -> Rotated:
    new = begin_rotation(settings, "lake")
    mark = hashlib.sha256(b"lake rotation|" + new.encode()).hexdigest()[:16]
    lake, aside = Lake(settings), drops_folder(settings) / ASIDE
    written: list[LakePath] = []
    with open_warehouse(settings, memory_limit=settings.memory_limit) as connection:
        connection.execute(f"pragma add_parquet_key('{_NEW_LAKE_KEY}', '{new}')")
        settle_all(connection, settings, lake, progress)
        for table in all_tables():
            for load in lake.sealed_loads(table.source, table.name):
                folder = lake.load_folder(table.source, table.name, load.load_id)
                files = _in_store(folder, mark) if isinstance(folder, ObjectPath) else _on_disk(connection, lake, load)
                if files:
                    progress(f"lake: {table.qualified}, {load.load_id}")
                    written += files
        if isinstance(aside, ObjectPath):
            written += _in_store(aside, mark)
        else:
            for path in sorted(aside.glob(f"**/*{SEALED}")):
                if not _readable(connection, path, _NEW_LAKE_KEY):
                    _rewrite(connection, path, None).replace(path)
                    written.append(path)
    end_rotation(settings, "lake")
    return Rotated("lake", len(written), sum(path.stat().st_size for path in written))


def _in_store(folder: ObjectPath, mark: str) -> list[LakePath]:
    """Every object below, written anew by the store. It holds what it held: a seal vouches for it as before."""
    return [path for path in folder.files() if path.rewrite(mark)]


def _on_disk(connection: duckdb.DuckDBPyConnection, lake: Lake, load: SealedLoad) -> list[LakePath]:
    """The files of a load that open with the old key, written anew under the new one."""
    _drop_leftovers(lake.load_folder(load.source, load.table, load.load_id), {file.path.name for file in load.files})
    rewritten: dict[str, LakePath] = {
        file.path.name: _rewrite(connection, file.path, file.rows)
        for file in load.files
        if not _readable(connection, file.path, _NEW_LAKE_KEY)
    }
    if rewritten:
        lake.reseal(load, rewritten)
    return list(rewritten.values())


def _readable(connection: duckdb.DuckDBPyConnection, path: LakePath, key: str) -> bool:
    try:
        connection.execute(f"describe select * from {parts_sql([path], key)}")
    except duckdb.Error:
        return False
    return True


def _rewrite(connection: duckdb.DuckDBPyConnection, path: LakePath, rows: int | None) -> Path:
    if not isinstance(path, Path):
        raise TypeError("the store rewrites its objects itself")
    stem = path.name.removesuffix(".parquet").removesuffix(_REWRITTEN.removesuffix(".parquet"))
    new = path.with_name(stem + (_REWRITTEN if not path.name.endswith(_REWRITTEN) else ".parquet"))
    written = write_part(connection, f"select * from {parts_sql([path])}", new, _NEW_LAKE_KEY)
    new.chmod(path.stat().st_mode & 0o777)
    if rows is not None and written != rows:
        new.unlink()
        raise WarehouseError(
            f"a rewritten file of the lake holds {written} of {rows} rows",
            kept="the lake, under the old key",
            todo="run `warehouse replay` to find what is damaged; restore it from your backup",
        )
    return new


def _drop_leftovers(folder: LakePath, sealed: set[str]) -> None:
    """What a killed rotation wrote and no seal names."""
    if isinstance(folder, Path):
        for path in folder.glob("*.parquet*"):
            if path.name not in sealed:
                path.unlink()


def _remove(path: Path) -> None:
    for name in (path, path.with_name(path.name + ".wal")):
        name.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
