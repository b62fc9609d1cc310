"""The lake: every landed version as encrypted Parquet, in sealed loads that never change afterwards.

`<lake>/<source>/<table>/<load_id>/part-00000.parquet …` and, once complete, `_manifest.json`: the seal.
A folder without a seal is what a killed run left behind and is not part of the lake.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import duckdb

from warehouse.core.database import LAKE_KEY_NAME
from warehouse.core.errors import ConfigurationError, LoadIncomplete
from warehouse.core.paths import Home
from warehouse.core.settings import Settings

SEAL = "_manifest.json"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
"""What a folder may be called: no separator and no leading dot, so that nothing escapes the lake."""


@dataclass(frozen=True)
class SealedFile:
    """One Parquet file of a sealed load; size in bytes."""

    path: Path
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
        ConfigurationError: LAKE_URI is not a local folder.
    """

    def __init__(self, settings: Settings) -> None:
        self.root = _local_folder(settings.lake_uri) if settings.lake_uri else Home.of(settings).lake

    def load_folder(self, source: str, table: str, load_id: str) -> Path:
        """Where one load of one table lies, whether or not it exists yet."""
        return self._table_folder(source, table) / _checked(load_id)

    def part_path(self, source: str, table: str, load_id: str, number: int) -> Path:
        """Where part `number` (from 0) of a load goes; :func:`write_part` writes it."""
        return self.load_folder(source, table, load_id) / f"part-{number:05d}.parquet"

    def seal(self, source: str, table: str, load_id: str, manifest: Mapping[str, Any]) -> None:
        """Make the load part of the lake: write down what every file is, atomically and on disk.

        Args:
            manifest: facts about the load, JSON-able. `rows` is required: file name → rows in it. The key
                `files` is written here: name, rows, bytes and sha256 of each.

        Raises:
            LoadIncomplete: the files in the folder are not those of `rows`.
        """
        folder = self.load_folder(source, table, load_id)
        rows: Mapping[str, int] = manifest["rows"]
        found = sorted(path.name for path in folder.glob("*.parquet"))
        if found != sorted(rows):
            raise LoadIncomplete(
                f"{source}/{table}/{load_id}: {len(found)} files were written, {len(rows)} were counted",
                kept="the load stays unsealed and is not part of the lake",
                todo="run the ingestion again",
            )
        files = [
            {
                "name": name,
                "rows": rows[name],
                "bytes": (folder / name).stat().st_size,
                "sha256": _sha256(folder / name),
            }
            for name in found
        ]
        facts = {name: value for name, value in manifest.items() if name != "rows"}
        folder.mkdir(parents=True, exist_ok=True)
        _write_durably(folder / SEAL, json.dumps({**facts, "files": files}, indent=1, sort_keys=True))

    def sealed_loads(self, source: str, table: str) -> list[SealedLoad]:
        """The complete loads of a table, oldest first: load ids sort by time."""
        seals = sorted(self._table_folder(source, table).glob(f"*/{SEAL}"))
        return [self._read(source, table, seal) for seal in seals]

    def discard_unsealed(self, source: str, table: str) -> list[str]:
        """Delete what killed runs left of a table; returns the load ids."""
        folder = self._table_folder(source, table)
        unsealed = sorted(
            child for child in (folder.iterdir() if folder.is_dir() else ()) if not (child / SEAL).is_file()
        )
        for child in unsealed:
            shutil.rmtree(child)
        return [child.name for child in unsealed]

    def discard(self, source: str, table: str, load_id: str) -> None:
        """Delete a load that never reached the warehouse. Its seal goes first: killed here, it is unsealed."""
        folder = self.load_folder(source, table, load_id)
        (folder / SEAL).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _table_folder(self, source: str, table: str) -> Path:
        return self.root / _checked(source) / _checked(table)

    def _read(self, source: str, table: str, seal: Path) -> SealedLoad:
        manifest = json.loads(seal.read_text(encoding="utf-8"))
        files = tuple(
            SealedFile(seal.parent / file["name"], file["rows"], file["bytes"], file["sha256"])
            for file in manifest["files"]
        )
        return SealedLoad(source, table, seal.parent.name, files, manifest)


def write_part(connection: duckdb.DuckDBPyConnection, select_sql: str, path: Path) -> int:
    """Write a query's rows to an encrypted Parquet file and return how many there were.

    The file gets its name only when it is complete. `connection` must know the lake's key.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(path.name + ".partial")
    result = connection.execute(
        f"COPY ({select_sql}) TO {sql_text(partial)} "
        f"(FORMAT parquet, COMPRESSION zstd, ENCRYPTION_CONFIG {{footer_key: '{LAKE_KEY_NAME}'}})"
    ).fetchone()
    partial.replace(path)
    return int(result[0]) if result else 0


def sql_text(value: object) -> str:
    """`value` as a SQL string literal."""
    return "'" + str(value).replace("'", "''") + "'"


def _local_folder(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        raise ConfigurationError(
            "LAKE_URI names an S3 bucket, which this version does not support yet",
            todo="unset LAKE_URI, or name a folder: file:///path/to/lake",
        )
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ConfigurationError("LAKE_URI is not the address of a local folder", todo="LAKE_URI=file:///path/to/lake")
    return Path(unquote(parts.path))


def _checked(name: str) -> str:
    if not _NAME.match(name):
        raise ValueError("a source, table or load id of the lake may hold letters, digits, _, - and . only")
    return name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_durably(path: Path, text: str) -> None:
    """Write `path` whole or not at all, and only after the Parquet files beside it are safe on disk."""
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
