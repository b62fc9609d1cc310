"""From sealed lake files into the raw tables, through dlt: one pipeline and one package per source.

dlt gives the load its bookkeeping: a package that survives a killed process, merge without doubled rows, and
the position in the source (cursors, offsets) committed in the same package as the data. Three rules keep that
bookkeeping honest:

* **The warehouse is the only memory.** dlt's folder holds the package in flight and is emptied around it, so
  it can be lost, or older or newer than the warehouse, without a row being skipped.
* **A package names the package it follows.** When the warehouse is not where the package expects it (a
  restored backup), loading it would step over what lies between: it is discarded, its rows are read again.
* **dlt moves no data.** It gets a query over the encrypted files (a "model"); DuckDB reads them itself.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import dlt
import duckdb
from dlt.common.destination.client import SqlModel, WithStateSync
from dlt.common.destination.exceptions import DestinationUndefinedEntity, WithJobError
from dlt.common.exceptions import DltException
from dlt.common.schema.typing import LOADS_TABLE_NAME, PIPELINE_STATE_TABLE_NAME, TColumnSchema
from dlt.common.versioned_state import decompress_state
from dlt.extract import DltResource, DltSource
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.pipeline import Pipeline

from ingestion.destinations.duckdb import JobInterrupted, held_warehouse
from ingestion.destinations.runtime import quiet_dlt
from ingestion.lake import LakePath, parts_sql
from ingestion.schema import SourceName, Table, tables
from ingestion.versions import CURRENT
from warehouse.core.errors import ConfigurationError, LoadIncomplete
from warehouse.core.paths import Home
from warehouse.core.settings import CATALOG, Settings

DLT_TYPES: dict[str, TColumnSchema] = {
    "varchar": {"data_type": "text"},
    "smallint": {"data_type": "bigint", "precision": 16},
    "integer": {"data_type": "bigint", "precision": 32},
    "bigint": {"data_type": "bigint"},
    "boolean": {"data_type": "bool"},
    "double": {"data_type": "double"},
    "date": {"data_type": "date"},
    "timestamp with time zone": {"data_type": "timestamp", "timezone": True},
    "json": {"data_type": "json"},
}
"""DuckDB type of a raw column → dlt's hint for it. Decimals carry their own precision and scale."""

Channel = Literal["live", "files"]
"""How the rows of a source come in. Each channel has a position of its own: a drop moves no cursor."""

NEWEST = "_landed_at"
"""Among versions of one key in one package, the one that landed last becomes current."""


@dataclass(frozen=True)
class LandedTable:
    """The sealed lake files of one table, to be loaded together."""

    table: Table
    load_id: str
    files: tuple[LakePath, ...]
    rows: int
    unique_keys: bool = False
    """No key stands twice in the files, so that nothing has to be looked for before they replace what is there."""
    late_rows: int = 0
    """Of `rows`, those that are history only (see `ingestion.versions.LATE`)."""


@dataclass(frozen=True)
class LoadResult:
    """What one call loaded. `dlt_load_id` is None when nothing had to be stored."""

    dlt_load_id: str | None
    rows: Mapping[str, int] = field(default_factory=dict)
    """Rows read from the lake, by table."""
    seconds: float = 0.0


@dataclass(frozen=True)
class _Committed:
    """The last package the warehouse holds whole: its id and the position in the source that goes with it."""

    load_id: str | None
    state: dict[str, Any]


def load_packages(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    source: SourceName,
    landed: Sequence[LandedTable],
    state: Mapping[str, Any],
    progress: Callable[[str], None],
    *,
    channel: Channel = "live",
) -> LoadResult:
    """Load the files of `landed` and commit `state` with them, as one package.

    Current rows are replaced by key, history is appended. With nothing landed only a changed state is stored.
    A package that an earlier run left behind is finished first.

    Args:
        connection: holds the warehouse for writing and knows the lake's key; it stays open.
        landed: at most one entry per table; the raw tables exist.
        state: JSON-able; replaces the state of the source's channel as a whole.

    Raises:
        ConfigurationError: the lake's key does not open the files.
        LoadIncomplete: a file is missing or not what was landed, or a table could not be loaded. In the last
            case the package stays pending, and the next call (or :func:`drain_pending`) loads it.
    """
    started = time.perf_counter()
    position = json.loads(json.dumps(state))
    for entry in landed:
        check_files(connection, entry)
    with _pipeline(connection, settings, source, channel) as pipeline:
        _finish_pending(pipeline, source, progress)
        committed = _committed(pipeline)
        if not landed and committed.state == position:
            return LoadResult(None)
        pipeline.drop()
        with _explained(source):
            pipeline.sync_destination()
            loads = [[entry.table.name, entry.load_id] for entry in landed]
            _remember(pipeline, {"position": position, "after": committed.load_id, "loads": loads})
            if landed:
                progress(f"{source}: loading {len(landed)} tables, {sum(entry.rows for entry in landed):,} rows")
            pipeline.extract(_package(pipeline, landed))
            pipeline.normalize()
            info = pipeline.load(workers=1)
    return LoadResult(
        info.loads_ids[-1],
        {entry.table.name: entry.rows for entry in landed},
        time.perf_counter() - started,
    )


def read_state(
    connection: duckdb.DuckDBPyConnection, settings: Settings, source: SourceName, *, channel: Channel = "live"
) -> dict[str, Any]:
    """The state committed with the last complete package of a source's channel; empty before the first.

    Read from the warehouse, never from dlt's folder: it cannot be ahead of the data. And read as :func:`_committed`
    does, but without a pipeline: to make one is a good part of a run that finds nothing new.
    """
    name = _pipeline_name(source, channel)
    schema = f"{CATALOG}.{next(iter(tables(source).values())).raw_schema}"
    try:
        stored = connection.execute(
            f"select kept.state from {schema}.{PIPELINE_STATE_TABLE_NAME} as kept "
            f"inner join {schema}.{LOADS_TABLE_NAME} as loads on loads.load_id = kept._dlt_load_id "
            "where kept.pipeline_name = ? and loads.status = 0 order by loads.load_id desc limit 1",
            [name],
        ).fetchone()
    except duckdb.CatalogException:  # nothing was ever loaded
        return {}
    return _position(stored[0], name) if stored else {}


def drain_pending(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    source: SourceName,
    progress: Callable[[str], None],
    *,
    channel: Channel = "live",
) -> bool:
    """Finish the package that a killed run left behind; True when there was one and it is now loaded.

    Raises:
        LoadIncomplete: it cannot be loaded; it stays pending.
    """
    if not (Home.of(settings).dlt / _pipeline_name(source, channel)).exists():
        return False  # what dlt would take a while to find out
    with _pipeline(connection, settings, source, channel) as pipeline:
        return _finish_pending(pipeline, source, progress)


@dataclass(frozen=True)
class DiscardedLoad:
    """One table's part of a package that was given up."""

    table: str
    load_id: str


def discard_package(
    connection: duckdb.DuckDBPyConnection, settings: Settings, source: SourceName, *, channel: Channel = "live"
) -> list[DiscardedLoad]:
    """Give up the pending package of a source's channel; returns what it would have loaded, if there was one.

    A package that is in the warehouse already and was only not tidied up is not given up but finished.
    """
    with _pipeline(connection, settings, source, channel) as pipeline:
        if not pipeline.has_pending_data:
            return []
        loaded = _committed(pipeline).load_id in pipeline.list_normalized_load_packages()
        loads = [] if loaded else pipeline.state["sources"].get(pipeline.pipeline_name, {}).get("loads", [])
        pipeline.drop()
    return [DiscardedLoad(table, load_id) for table, load_id in loads]


def _pipeline_name(source: SourceName, channel: Channel) -> str:
    return source if channel == "live" else f"{channel}_{source}"


@contextmanager
def _pipeline(
    connection: duckdb.DuckDBPyConnection, settings: Settings, source: SourceName, channel: Channel
) -> Iterator[Pipeline]:
    """The pipeline of a source's channel. It has a folder of its own only while a package is pending in it."""
    folder = Home.of(settings).dlt
    with quiet_dlt(folder):
        pipeline = dlt.pipeline(
            pipeline_name=_pipeline_name(source, channel),
            pipelines_dir=str(folder),
            destination=held_warehouse(connection),
            dataset_name=next(iter(tables(source).values())).raw_schema,
        )
        try:
            yield pipeline
        finally:
            if not pipeline.has_pending_data:
                shutil.rmtree(pipeline.working_dir)
            pipeline.deactivate()


def _finish_pending(pipeline: Pipeline, source: SourceName, progress: Callable[[str], None]) -> bool:
    if not pipeline.has_pending_data:
        return False
    committed = _committed(pipeline).load_id
    if committed in pipeline.list_normalized_load_packages():  # died between the commit and dlt's own tidying up
        pipeline.drop()
        return True
    if pipeline.state["sources"][pipeline.pipeline_name]["after"] != committed:
        progress(f"{source}: an interrupted package does not follow what is loaded; its rows are read again")
        pipeline.drop()
        return False
    progress(f"{source}: finishing the package of an interrupted run")
    with _explained(source):
        pipeline.normalize()
        pipeline.load(workers=1)
    return True


def _committed(pipeline: Pipeline) -> _Committed:
    client = pipeline.destination_client()
    if not isinstance(client, WithStateSync):
        raise TypeError("the destination keeps no state")
    with client:
        try:
            stored = client.get_stored_state(pipeline.pipeline_name)
        except DestinationUndefinedEntity:  # nothing was ever loaded
            stored = None
    if stored is None:
        return _Committed(None, {})
    return _Committed(stored._dlt_load_id, _position(stored.state, pipeline.pipeline_name))


def _position(stored: str, pipeline_name: str) -> dict[str, Any]:
    position: dict[str, Any] = decompress_state(stored)["sources"][pipeline_name]["position"]
    return position


def _remember(pipeline: Pipeline, remembered: dict[str, Any]) -> None:
    with pipeline.managed_state() as state:
        state.setdefault("sources", {})[pipeline.pipeline_name] = remembered


def _package(pipeline: Pipeline, landed: Sequence[LandedTable]) -> DltSource:
    folder = Path(pipeline.working_dir) / "models"
    folder.mkdir()
    resources = [resource for entry in landed for resource in _resources(folder, entry)]
    name = pipeline.pipeline_name
    return DltSource(dlt.Schema(name), name, resources)


def _resources(folder: Path, entry: LandedTable) -> Iterator[DltResource]:
    table = entry.table
    columns = {name: _hint(name, sql_type) for name, sql_type in table.landed_columns}

    def files(name: str, select: str) -> Iterator[Any]:
        model = folder / f"{name}.model"
        model.write_text(str(SqlModel.from_query_string(select, "duckdb")), encoding="utf-8")
        yield dlt.mark.with_file_import(str(model), "model", entry.rows)

    select = _select(entry)
    current = dlt.resource(
        files(table.name, f"{select} WHERE {CURRENT}" if entry.late_rows else select),
        name=table.name,
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
        primary_key=table.key,
        columns={**columns, NEWEST: {**columns[NEWEST], "dedup_sort": "desc"}},
    )
    current.apply_hints(additional_table_hints={"x-stage-data-deduplicated": entry.unique_keys})
    yield current
    if table.history:
        name = f"{table.name}_history"
        yield dlt.resource(files(name, select), name=name, write_disposition="append", columns=columns)


def _select(entry: LandedTable) -> str:
    columns = ", ".join(f'"{name}"' for name, _ in entry.table.landed_columns)
    return f"SELECT {columns} FROM {parts_sql(entry.files)}"


def _hint(name: str, sql_type: str) -> TColumnSchema:
    if sql_type.startswith("decimal("):
        precision, scale = map(int, sql_type.removeprefix("decimal(").removesuffix(")").split(","))
        return {"name": name, "data_type": "decimal", "precision": precision, "scale": scale}
    return {"name": name, **DLT_TYPES[sql_type]}


def check_files(connection: duckdb.DuckDBPyConnection, entry: LandedTable) -> None:
    """Refuse files that are missing, unreadable or not of the pinned shape, before anything is loaded from them.

    dlt does not validate a model (a double 3.7 lands in a bigint as 4), and COPY would cast as silently.

    Raises:
        ConfigurationError: the lake's key does not open them.
        LoadIncomplete: anything else is wrong with them.
    """
    missing = [path for path in entry.files if not path.is_file()]
    if missing:
        raise _refused(entry, f"{len(missing)} of {len(entry.files)} lake files are missing")
    try:
        described = connection.execute(f"DESCRIBE SELECT * FROM {parts_sql(entry.files)}").fetchall()
        counted = connection.execute(f"SELECT count(*) FROM {parts_sql(entry.files)}").fetchone()
    except duckdb.Error as error:
        raise _unreadable(entry, error) from None
    found = {name: sql_type.lower() for name, sql_type, *_ in described}
    pinned = dict(entry.table.landed_columns)
    wrong = sorted(name for name in found.keys() | pinned.keys() if found.get(name) != pinned.get(name))
    if wrong:
        raise _refused(entry, f"the lake files are not of the pinned shape in {', '.join(wrong)}")
    if counted != (entry.rows,):
        raise _refused(entry, "the lake files do not hold the rows that were counted")


def _refused(entry: LandedTable, problem: str) -> LoadIncomplete:
    return LoadIncomplete(
        f"{entry.table.qualified}, load {entry.load_id}: {problem}",
        kept="everything loaded before; nothing of this load",
        todo="run `warehouse ingest` again: it reads from the last committed position",
    )


def _unreadable(entry: LandedTable, error: duckdb.Error) -> Exception:
    # DuckDB's message names the file and the cipher, never a value, but differs between versions
    if "key" in str(error).lower() or "decrypt" in str(error).lower():
        return ConfigurationError(
            f"{entry.table.qualified}, load {entry.load_id}: the files do not open with this lake key",
            kept="the files and the warehouse are untouched",
            todo="restore the keys/ that belong to this WAREHOUSE_HOME",
        )
    return _refused(entry, f"the lake files cannot be read ({type(error).__name__})")


@contextmanager
def _explained(source: SourceName) -> Iterator[None]:
    """Turn dlt's errors into ours, which name the table and what was kept."""
    try:
        yield
    except DltException as error:
        failure = error.exception if isinstance(error, PipelineStepFailed) else error
        cause: BaseException = failure
        while inner := getattr(cause, "client_exception", None) or getattr(cause, "dbapi_exception", None):
            cause = inner
        if isinstance(cause, JobInterrupted) and cause.__cause__ is not None:
            cause = cause.__cause__
        if not isinstance(cause, Exception):  # Ctrl-C is no failure of a load
            raise cause.with_traceback(None) from None
        raise _load_error(source, failure, cause) from None


def _load_error(source: SourceName, failure: BaseException, cause: Exception) -> LoadIncomplete:
    table = "the package"
    if isinstance(failure, WithJobError):
        table = failure.job_id.split(".")[0]  # <table>.<file>.<format>
    return LoadIncomplete(
        f"{source}: {table} could not be loaded ({type(cause).__name__})",
        kept="the sealed files in the lake; the package stays pending and no position moved",
        todo="correct the cause (a full disk, a missing lake file) and run `warehouse ingest` again; "
        "to read the rows from the source instead, run `warehouse ingest --discard-pending` first",
    )
