"""The drop folder, on disk or on S3: what is ready, how it is opened, and where it goes once landed.

Ignored, because somebody is still writing them or they are not data: names that begin with `_` or `.`, names that end
in `.part`, `.tmp` or `.partial`, manifests, and the `.metadata.json` that mongodump leaves beside its files. Refused:
links of either kind, folders below a table, folders that are no pinned table.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa

from ingestion.lake import LakePath, lake_folder, local_folder, parts_sql, write_part
from ingestion.schema import SourceName, Table, tables
from warehouse.core.errors import ConfigurationError
from warehouse.core.objects import ObjectPath, object_folder
from warehouse.core.paths import Home
from warehouse.core.settings import Settings

MANIFEST = ".manifest.json"
ASIDE = "_quarantined"
"""Folder below the drops for landed files that had rows which did not fit: only they still hold those rows."""
SEALED = ".sealed"
"""What the name of such a file ends in, on disk: it is Parquet under the lake's key, and holds the bytes."""
SOURCES: tuple[SourceName, ...] = ("oltp", "mongodb", "stream")
_UNFINISHED = (".part", ".tmp", ".partial", ".metadata.json", ".metadata.json.gz", MANIFEST)
_LOOK_SECONDS = 1.0
_MANIFEST_BYTES = 2**16
_BLOCK = 2**20
_CONTENT = "drop_content"
_CONTENT_SCHEMA = pa.schema([("part", pa.int64()), ("content", pa.binary())])


class RefusedDrop(Exception):
    """A file that cannot land. The message is a reason without a value of the file; the file stays."""


@dataclass(frozen=True)
class Drop:
    """A file that is ready: which version of it (`stamp`), and what its manifest says."""

    table: Table
    path: LakePath
    size: int
    stamp: str = field(compare=False)

    @property
    def label(self) -> str:
        """How people are told which file is meant: `oltp/customer/day1.csv`."""
        return f"{self.table.source}/{self.table.name}/{shown(self.path.name)}"


@dataclass(frozen=True)
class Found:
    """What lies in the drop folder, in the order in which it lands, and what is refused at sight: label → reason."""

    drops: list[Drop]
    refused: dict[str, str]


def shown(name: str) -> str:
    """A file's name as it may stand in an error or a log line."""
    return re.sub(r"[^A-Za-z0-9_.-]", "?", name)[:100]


def drops_folder(settings: Settings) -> LakePath:
    """Where partners leave files.

    Raises:
        ConfigurationError: DROPS_URI is no address, or lies in the lake, or the lake in it.
    """
    if not settings.drops_uri:
        folder: LakePath = Home.of(settings).drops
    elif urlsplit(settings.drops_uri).scheme == "s3":
        folder = object_folder(settings, settings.drops_uri, "DROPS_URI")
    else:
        folder = local_folder(settings.drops_uri, "DROPS_URI")
    mine, lake = f"{folder}/", f"{lake_folder(settings)}/"
    if mine.startswith(lake) or lake.startswith(mine):
        raise ConfigurationError(
            "the drops and the lake lie in one folder",
            todo="name another DROPS_URI: landed drops are removed, the lake is kept",
        )
    return folder


def find(settings: Settings) -> Found:
    """Look into the drop folder. A file that is younger than DROPS_SETTLE_SECONDS must be the same a second later."""
    folder = drops_folder(settings)
    if isinstance(folder, ObjectPath):
        return _find_objects(folder)
    first = _look(folder)
    young = {drop.path for drop in first.drops if not _settled(drop, settings.drops_settle_seconds)}
    if young:
        time.sleep(_LOOK_SECONDS)
        second = {drop.path: drop.stamp for drop in _look(folder).drops}
        first.drops[:] = [drop for drop in first.drops if drop.path not in young or second.get(drop.path) == drop.stamp]
    return first


@contextmanager
def opened(drop: Drop) -> Iterator[BinaryIO]:
    """The bytes of exactly the version that was found, seekable.

    Raises:
        RefusedDrop: it is a link, not a file, or has changed since.
    """
    if isinstance(drop.path, ObjectPath):
        with drop.path.open_read() as remote:
            yield cast(BinaryIO, remote)
    else:
        try:
            descriptor = os.open(drop.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise RefusedDrop(f"cannot be opened ({type(error).__name__})") from None
        with io.open(descriptor, "rb", buffering=0) as file:  # noqa: UP020  # of a descriptor
            if _stamp(os.fstat(file.fileno())) != drop.stamp:
                raise RefusedDrop("changed while it was read")
            yield cast(BinaryIO, file)
    check_unchanged(drop)


def check_unchanged(drop: Drop) -> None:
    """Raise RefusedDrop when the file is no longer the version that was found."""
    if isinstance(drop.path, ObjectPath):
        unchanged = drop.path.is_file() and drop.path.stat().etag == drop.stamp
    else:
        try:
            unchanged = _stamp(drop.path.lstat()) == drop.stamp
        except OSError:
            unchanged = False
    if not unchanged:
        raise RefusedDrop("changed while it was read")


def digest(drop: Drop) -> str:
    """SHA-256 of the file as it lies there, hex."""
    found = hashlib.sha256()
    with opened(drop) as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def manifest_text(drop: Drop) -> str | None:
    """The text of `<file>.manifest.json`; None when there is none. Raises RefusedDrop when it is not one."""
    path = _manifest_path(drop)
    if isinstance(path, ObjectPath):
        if not path.is_file():
            return None
        size, regular = path.stat().st_size, True
    else:
        try:
            found = path.lstat()
        except FileNotFoundError:
            return None
        size, regular = found.st_size, stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    if not regular or size > _MANIFEST_BYTES:
        raise RefusedDrop("has a manifest that is a link or too long")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RefusedDrop("has a manifest that is not UTF-8") from None


def remove(drop: Drop) -> None:
    """Delete a landed file and its manifest."""
    drop.path.unlink(missing_ok=True)
    _manifest_path(drop).unlink(missing_ok=True)


def set_aside(connection: duckdb.DuckDBPyConnection, drop: Drop, folder: LakePath, sha256: str) -> str:
    """Move a landed file out of the way, to `_quarantined/`, as safe as the lake; returns its new label.

    On disk it is sealed under the lake's key, which `connection` knows; on S3 the store encrypts it. Killed in
    between, the file is where it was, and set aside by the next run.
    """
    name = f"{sha256[:12]}-{drop.path.name}"
    place = folder / ASIDE / drop.table.source / drop.table.name
    if isinstance(drop.path, ObjectPath):
        target = place / name
        if isinstance(target, ObjectPath):
            drop.path.copy_to(target)
    else:
        name += SEALED
        connection.register(_CONTENT, pa.RecordBatchReader.from_batches(_CONTENT_SCHEMA, _content(drop)))
        sealed = Path(str(place / name))
        write_part(connection, f"select part, content from {_CONTENT}", sealed)
        sealed.chmod(0o600)
        connection.unregister(_CONTENT)
    drop.path.unlink()
    _manifest_path(drop).unlink(missing_ok=True)
    return f"{ASIDE}/{drop.table.source}/{drop.table.name}/{shown(name)}"


def unseal(connection: duckdb.DuckDBPyConnection, path: Path) -> Iterator[bytes]:
    """What a file held before it was set aside, in order.

    Raises:
        ConfigurationError: it is no sealed file, or not of this installation's lake key.
    """
    try:
        found = connection.execute(f"select content from {parts_sql([path])} order by part")
    except duckdb.Error:
        raise ConfigurationError(
            f"{shown(path.name)} does not open with this lake key",
            todo="name a file of _quarantined/ in the drop folder of this installation",
        ) from None
    while (row := found.fetchone()) is not None:
        yield row[0]


def _content(drop: Drop) -> Iterator[pa.RecordBatch]:
    with opened(drop) as file:
        for part in itertools.count():
            if not (block := file.read(_BLOCK)):
                return
            yield pa.RecordBatch.from_arrays([pa.array([part]), pa.array([block], pa.binary())], schema=_CONTENT_SCHEMA)


def _manifest_path(drop: Drop) -> LakePath:
    return drop.path.parent / (drop.path.name + MANIFEST)


def _ignored(name: str) -> bool:
    return name.startswith(("_", ".")) or name.lower().endswith(_UNFINISHED)


def _settled(drop: Drop, seconds: float) -> bool:
    return isinstance(drop.path, Path) and time.time() - drop.path.lstat().st_mtime > seconds


def _stamp(found: os.stat_result) -> str:
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise RefusedDrop("is a link or no file")
    return f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"


def _look(folder: Path) -> Found:
    found = Found([], {})
    for source in _entries(folder):
        if not _is_folder(source):
            found.refused[shown(source.name)] = "is a link, or a file outside of <source>/<table>/"
        elif source.name not in SOURCES:
            found.refused[shown(source.name)] = f"is none of the folders {', '.join(SOURCES)}"
        else:
            for place in _entries(Path(source)):
                _look_into(source.name, place, found)
    found.drops.sort(key=lambda drop: (drop.table.source, drop.table.name, drop.path.name))
    return found


def _look_into(source: str, place: os.DirEntry[str], found: Found) -> None:
    label = f"{source}/{shown(place.name)}"
    table = _table(source, place.name)
    if not _is_folder(place):
        found.refused[label] = "is a link, or a file outside of <source>/<table>/"
    elif table is None:
        found.refused[label] = "is no pinned table of this source"
    else:
        for entry in _entries(Path(place)):
            try:
                facts = entry.stat(follow_symlinks=False)
                found.drops.append(Drop(table, Path(entry), facts.st_size, _stamp(facts)))
            except FileNotFoundError:
                continue  # taken back meanwhile
            except RefusedDrop as refusal:
                found.refused[f"{label}/{shown(entry.name)}"] = str(refusal)


def _entries(folder: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not _ignored(entry.name)), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _table(source: str, name: str) -> Table | None:
    return next((tables(known).get(name) for known in SOURCES if known == source), None)


def _find_objects(folder: ObjectPath) -> Found:
    """Objects appear whole: none is ever half-written."""
    found = Found([], {})
    for path in folder.files():
        steps = path.key.removeprefix(folder.key + "/").split("/")
        if any(_ignored(step) for step in steps if step) or not steps[-1]:
            continue
        label = "/".join(shown(step) for step in steps)
        table = _table(steps[0], steps[1]) if len(steps) == 3 else None
        if table is None:
            found.refused[label] = "does not lie in <source>/<table>/ of a pinned table"
            continue
        facts = path.stat()
        found.drops.append(Drop(table, path, facts.st_size, facts.etag))
    return found
