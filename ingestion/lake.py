"""The lake: every landed version as encrypted Parquet, in sealed loads that never change afterwards.

`<lake>/<source>/<table>/<load_id>/part-00000.parquet …` and, once complete, `_manifest.json`: the seal. The empty
`_loaded` beside it says that the warehouse committed the load. A folder without a seal is what a killed run left
behind and is not part of the lake; a load that another one says it `replaces` (compaction) no longer is.

On disk DuckDB encrypts the files; on S3 they are plain Parquet under the store's own encryption, demanded with every
write and looked for afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import duckdb

from warehouse.core.database import LAKE_KEY_NAME
from warehouse.core.errors import ConfigurationError, LoadIncomplete, WarehouseError
from warehouse.core.objects import WRITE_PROTOCOL, ObjectPath, object_folder
from warehouse.core.paths import Home
from warehouse.core.settings import Settings

LakePath = Path | ObjectPath
SEAL = "_manifest.json"
LOADED = "_loaded"
_HASH_BYTES = 2**20
_DICTIONARY_VALUES = 1_000
"""A column chunk with more distinct values has no dictionary. DuckDB would collect a fifth of a row group's values
before it gives up: a third of what writing keys and hashes costs, for one per cent of their size."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
"""What a folder may be called: no separator and no leading dot, so that nothing escapes the lake."""


@dataclass(frozen=True)
class SealedFile:
    """One Parquet file of a sealed load; size in bytes."""

    path: LakePath
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True)
class SealedLoad:
    """One load of one table, complete."""

    source: str
    table: str
    load_id: str
    files: tuple[SealedFile, ...]
    manifest: Mapping[str, Any]
    loaded: bool = True
    """Whether the warehouse is known to have committed it."""

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(file.rows for file in self.files)

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(file.size for file in self.files)

    def verify(self) -> None:
        """Raise LoadIncomplete when a file is missing or is no longer what was sealed."""
        for file in self.files:
            if not file.path.is_file():
                raise self._damaged(file, "is missing")
            if file.path.stat().st_size != file.size or _sha256(file.path) != file.sha256:
                raise self._damaged(file, "is not what was sealed")

    def _damaged(self, file: SealedFile, problem: str) -> LoadIncomplete:
        return LoadIncomplete(
            f"the lake's {self.source}/{self.table}/{self.load_id}/{file.path.name} {problem}",
            kept="the warehouse and every other load",
            todo="restore the file from your backup",
        )


class Lake:
    """The lake of one installation.

    Raises:
        ConfigurationError: LAKE_URI is neither a local folder nor a bucket with credentials.
    """

    def __init__(self, settings: Settings) -> None:
        self.root: LakePath = lake_folder(settings)

    def load_folder(self, source: str, table: str, load_id: str) -> LakePath:
        """Where one load of one table lies, whether or not it exists yet."""
        return self._table_folder(source, table) / _checked(load_id)

    def part_path(self, source: str, table: str, load_id: str, number: int) -> LakePath:
        """Where part `number` (from 0) of a load goes; :func:`write_part` writes it."""
        return self.load_folder(source, table, load_id) / f"part-{number:05d}.parquet"

    def seal(self, source: str, table: str, load_id: str, manifest: Mapping[str, Any]) -> None:
        """Make the load part of the lake: write down what every file is, last, atomically and durably.

        Args:
            manifest: facts about the load, JSON-able. `rows` is required: file name → rows in it. `replaces` names
                loads that are no longer part of the lake from now on. The key `files` is written here: name, rows,
                bytes and sha256 of each.

        Raises:
            LoadIncomplete: the files in the folder are not those of `rows`.
        """
        folder = self.load_folder(source, table, load_id)
        rows: Mapping[str, int] = manifest["rows"]
        found = [path for path in _files_of(folder) if path.name.endswith(".parquet")]
        if [path.name for path in found] != sorted(rows):
            raise LoadIncomplete(
                f"{source}/{table}/{load_id}: {len(found)} files were written, {len(rows)} were counted",
                kept="the load stays unsealed and is not part of the lake",
                todo="run the ingestion again",
            )
        files = [
            {"name": path.name, "rows": rows[path.name], "bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in found
        ]
        facts = {name: value for name, value in manifest.items() if name != "rows"}
        _write_durably(folder / SEAL, json.dumps({**facts, "files": files}, indent=1, sort_keys=True))

    def reseal(self, load: SealedLoad, files: Mapping[str, LakePath]) -> None:
        """Make `files` (name of an old one → the new one with its rows, in the same folder) the load's, atomically.

        The old files are deleted once the new seal is durable. What the load holds and says of itself stays.
        """
        folder = self.load_folder(load.source, load.table, load.load_id)
        described = [
            {"name": path.name, "rows": old.rows, "bytes": path.stat().st_size, "sha256": _sha256(path)}
            for old in load.files
            for path in (files.get(old.path.name, old.path),)
        ]
        facts = {**load.manifest, "files": described}
        _write_durably(folder / SEAL, json.dumps(facts, indent=1, sort_keys=True))
        for name in files:
            (folder / name).unlink(missing_ok=True)

    def mark_loaded(self, source: str, table: str, load_id: str) -> None:
        """Note that the warehouse committed the load; safe to repeat."""
        marker = self.load_folder(source, table, load_id) / LOADED
        if isinstance(marker, ObjectPath):
            marker.write(b"")
        else:
            marker.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            marker.touch()

    def sealed_loads(self, source: str, table: str) -> list[SealedLoad]:
        """The complete loads of a table that no other replaces, oldest first: load ids sort by time."""
        loads = [self._read(source, table, load_id, files) for load_id, files in self._folders(source, table).items()]
        sealed = [load for load in loads if load is not None]
        replaced = {load_id for load in sealed for load_id in load.manifest.get("replaces", ())}
        return [load for load in sealed if load.load_id not in replaced]

    def unsettled(self, source: str, table: str) -> list[str]:
        """The sealed loads of which it is not known that the warehouse committed them."""
        return [
            load_id for load_id, files in self._folders(source, table).items() if SEAL in files and LOADED not in files
        ]

    def discard_unsealed(self, source: str, table: str) -> list[str]:
        """Delete what killed runs left of a table; returns the load ids."""
        unsealed = [load_id for load_id, files in self._folders(source, table).items() if SEAL not in files]
        for load_id in unsealed:
            self.discard(source, table, load_id)
        return unsealed

    def discard_replaced(self, source: str, table: str) -> list[str]:
        """Delete what the load that replaces it has made superfluous; returns the load ids."""
        loads = [self._read(source, table, load_id, files) for load_id, files in self._folders(source, table).items()]
        there = {load.load_id for load in loads if load is not None}
        replaced = {name for load in loads if load is not None for name in load.manifest.get("replaces", ())}
        for load_id in sorted(there & replaced):
            self.discard(source, table, load_id)
        return sorted(there & replaced)

    def discard(self, source: str, table: str, load_id: str) -> None:
        """Delete a load. Its seal goes first: killed here, it is unsealed."""
        folder = self.load_folder(source, table, load_id)
        (folder / SEAL).unlink(missing_ok=True)
        if isinstance(folder, ObjectPath):
            for path in folder.files():
                path.unlink()
        elif folder.is_dir():
            shutil.rmtree(folder)
        else:
            folder.unlink(missing_ok=True)

    def _table_folder(self, source: str, table: str) -> LakePath:
        return self.root / _checked(source) / _checked(table)

    def _folders(self, source: str, table: str) -> dict[str, set[str]]:
        """Load id → names of the files in its folder, oldest first."""
        folder = self._table_folder(source, table)
        found: dict[str, set[str]] = {}
        if isinstance(folder, ObjectPath):
            for path in folder.files():
                load_id, _, name = path.key.removeprefix(folder.key + "/").partition("/")
                found.setdefault(load_id, set()).add(name)
            return found
        for child in sorted(folder.iterdir()) if folder.is_dir() else ():
            found[child.name] = {path.name for path in child.iterdir()} if child.is_dir() else set()
        return found

    def _read(self, source: str, table: str, load_id: str, names: set[str]) -> SealedLoad | None:
        if SEAL not in names:
            return None
        folder = self.load_folder(source, table, load_id)
        manifest = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        files = tuple(
            SealedFile(folder / _checked(file["name"]), file["rows"], file["bytes"], file["sha256"])
            for file in manifest["files"]
        )
        return SealedLoad(source, table, load_id, files, manifest, LOADED in names)


def lake_folder(settings: Settings) -> LakePath:
    """Where the lake of these settings lies."""
    if not settings.lake_uri:
        return Home.of(settings).lake
    if urlsplit(settings.lake_uri).scheme == "s3":
        return object_folder(settings, settings.lake_uri, "LAKE_URI")
    return local_folder(settings.lake_uri, "LAKE_URI")


def parts_sql(files: Sequence[LakePath], key: str = LAKE_KEY_NAME) -> str:
    """SQL: a table function over parts of one lake. The connection knows the key of this name, or its bucket."""
    paths = ", ".join(sql_text(path) for path in files)
    if isinstance(files[0], ObjectPath):
        return f"read_parquet([{paths}])"
    return f"read_parquet([{paths}], encryption_config = {{footer_key: '{key}'}})"


def write_part(connection: duckdb.DuckDBPyConnection, select_sql: str, path: LakePath, key: str = LAKE_KEY_NAME) -> int:
    """Write a query's rows to a Parquet file of the lake and return how many there were.

    On disk the file is encrypted under the lake's key, which `connection` knows by the name `key`, and gets its name
    only when it is complete. On S3 the store encrypts it; what a failed write left is deleted.

    Raises:
        ConfigurationError: the store did not encrypt the object.
    """
    if isinstance(path, ObjectPath):
        try:
            result = connection.execute(
                f"COPY ({select_sql}) TO {sql_text(f'{WRITE_PROTOCOL}://{path.bucket}/{path.key}')} "
                "(FORMAT parquet, COMPRESSION zstd)"
            ).fetchone()
        except BaseException:
            with suppress(WarehouseError):  # it is unsealed anyhow, and the next run discards it
                path.unlink()
            raise
        path.check_encrypted()
        return int(result[0]) if result else 0
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(path.name + ".partial")
    result = connection.execute(
        f"COPY ({select_sql}) TO {sql_text(partial)} "
        # only DuckDB reads these: the newer encodings and the fastest level are smaller together, and a fifth cheaper
        "(FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd, COMPRESSION_LEVEL 1, "
        f"DICTIONARY_SIZE_LIMIT {_DICTIONARY_VALUES}, "
        f"ENCRYPTION_CONFIG {{footer_key: '{key}'}})"
    ).fetchone()
    partial.replace(path)
    return int(result[0]) if result else 0


def sql_text(value: object) -> str:
    """`value` as a SQL string literal."""
    return "'" + str(value).replace("'", "''") + "'"


def local_folder(uri: str, name: str) -> Path:
    """The folder that the setting `name` names with `uri`. Raises ConfigurationError when it names none."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ConfigurationError(
            f"{name} is neither the address of a local folder nor that of a bucket",
            todo=f"{name}=file:///path/to/folder, or {name}=s3://bucket/prefix",
        )
    return Path(unquote(parts.path))


def _checked(name: str) -> str:
    if not _NAME.match(name):
        raise ValueError("a source, table or load id of the lake may hold letters, digits, _, - and . only")
    return name


def _files_of(folder: LakePath) -> list[LakePath]:
    if isinstance(folder, ObjectPath):
        return list(folder.files())
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _sha256(path: LakePath) -> str:
    """Of what is stored, read back: on S3 too, so that a seal never vouches for what did not arrive."""
    with path.open("rb") if isinstance(path, Path) else path.open_read() as file:
        digest = hashlib.sha256()
        while block := file.read(_HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _write_durably(path: LakePath, text: str) -> None:
    """Write `path` whole or not at all, and only after the Parquet files beside it are safe."""
    if isinstance(path, ObjectPath):
        path.write(text.encode())
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    for written in (*path.parent.glob("*.parquet"), temporary):
        _sync(written)
    temporary.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
