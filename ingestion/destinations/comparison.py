"""The local copy of what a remote warehouse holds of `raw_*`: what landing compares with, and checks before a build.

Landing asks of every row "has it landed before in this form?" and of every landed row "is it still there?". Asked
over the network, the answer would cost a download of every key and hash on each run. So the encrypted landing file
keeps the raw tables that the remote warehouse has, loaded from the same sealed lake files.

The remote ledger of loads is the truth and the local tables follow it: a load that is there and not here is applied
from the lake; when a load is here and not there (the remote warehouse was set back in time), the source's local
tables are emptied and built again, or landing would call rows unchanged that the remote warehouse no longer has.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import duckdb

from ingestion.erasure import erased_sql, masked_sql
from ingestion.lake import Lake, SealedLoad, sql_text
from ingestion.raw import raw_table_names
from ingestion.schema import SourceName, Table, tables
from ingestion.versions import CURRENT, LATE, VERSION, keys_sql, loads_sql
from warehouse.core.errors import LoadIncomplete
from warehouse.core.progress import Progress
from warehouse.core.settings import CATALOG, Settings

LOCAL_LEDGER = f"{CATALOG}.raw_ops.compared_loads"

Load = tuple[str, str]
"""Table name and load id."""


class Comparison:
    """The local tables of one remote warehouse, on a connection that holds the landing file and the lake's key."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
        self._connection = connection
        self._lake = Lake(settings)
        connection.execute(
            f"create table if not exists {LOCAL_LEDGER} (source varchar, table_name varchar, load_id varchar)"
        )

    def follow(self, source: SourceName, ledger: Collection[Load], progress: Progress) -> bool:
        """Make the local tables of a source equal to the loads of `ledger`; True when that took anything.

        Raises:
            LoadIncomplete: the lake lacks a load that the remote warehouse has.
        """
        wanted = set(ledger)
        held = set(
            self._connection.execute(
                f"select table_name, load_id from {LOCAL_LEDGER} where source = ?", [source]
            ).fetchall()
        )
        if held == wanted:
            return False
        started_over = bool(held - wanted)
        if started_over:
            progress(f"{source}: the warehouse was set back; what landing compares with is built again")
            held = set()
        else:
            progress(f"{source}: catching up with {len(wanted - held)} loads of the warehouse")
        missing = {
            table: sorted(load_id for name, load_id in wanted - held if name == table.name)
            for table in tables(source).values()
        }
        sealed = {table: self._sealed(table, load_ids) for table, load_ids in missing.items() if load_ids}
        self._connection.execute("begin")
        try:
            if started_over:
                self._empty(source)
            for table, loads in sealed.items():
                self._apply(table, missing[table], loads)
            self._connection.execute("commit")
        except BaseException:
            self._connection.execute("rollback")
            raise
        return True

    def _sealed(self, table: Table, load_ids: Sequence[str]) -> list[SealedLoad]:
        """The loads of the lake that hold the rows of `load_ids`: themselves, or what compaction made of them."""
        holding: dict[str, SealedLoad] = {}
        for load in self._lake.sealed_loads(table.source, table.name):
            holding |= dict.fromkeys((load.load_id, *load.manifest.get("replaces", ())), load)
        if lost := [load_id for load_id in load_ids if load_id not in holding]:
            raise LoadIncomplete(
                f"{table.qualified}: the warehouse holds {len(lost)} loads that this lake does not have",
                kept="the warehouse and the lake, untouched",
                todo="restore the lake that belongs to this warehouse, or check WAREHOUSE_HOME and LAKE_URI",
            )
        found = {holding[load_id].load_id: holding[load_id] for load_id in load_ids}
        for load in found.values():
            load.verify()
        return list(found.values())

    def _empty(self, source: SourceName) -> None:
        for table in tables(source).values():
            for name in raw_table_names(table):
                self._connection.execute(f"delete from {CATALOG}.{table.raw_schema}.{name}")
        self._connection.execute(f"delete from {LOCAL_LEDGER} where source = ?", [source])

    def _apply(self, table: Table, load_ids: Sequence[str], loads: Sequence[SealedLoad]) -> None:
        chosen = ", ".join(sql_text(prefix + load_id) for load_id in load_ids for prefix in ("", LATE))
        erased = erased_sql(self._connection, table) or "false"
        kept = (
            f"select * from ({loads_sql(self._connection, table, loads)}) "
            f"where {VERSION} in ({chosen}) and not {erased}"
        )
        versions = f"({masked_sql(self._connection, table, kept)})"
        names = ", ".join(f'"{name}"' for name, _ in table.landed_columns)
        keys = keys_sql(table)
        raw = f"{CATALOG}.{table.qualified}"
        newest = f"qualify row_number() over (partition by {keys} order by {VERSION} desc, _landed_at desc) = 1"
        self._connection.execute(
            f"delete from {raw} where ({keys}) in (select ({keys}) from {versions} where {CURRENT})"
        )
        self._connection.execute(f"insert into {raw} ({names}) select {names} from {versions} where {CURRENT} {newest}")
        if table.history:
            self._connection.execute(f"insert into {raw}_history ({names}) select {names} from {versions}")
        self._connection.executemany(
            f"insert into {LOCAL_LEDGER} values (?, ?, ?)",
            [[table.source, table.name, load_id] for load_id in load_ids],
        )
