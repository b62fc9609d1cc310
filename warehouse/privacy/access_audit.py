"""The audit log as rows of `raw_ops.access_audit`, for `ops_access_audit` to model; Snowflake's history in the same.

One row per event and resource it concerned (one where it concerned none). Set-based: DuckDB reads the JSON lines
itself. What a killed writer left torn is no event and stays in the log alone. Landing proves nothing about the log:
`privacy audit verify` does.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb

from warehouse.core.paths import Home
from warehouse.core.settings import CATALOG, Settings
from warehouse.privacy.detections.snowflake import from_snowflake

TABLE = f"{CATALOG}.raw_ops.access_audit"
_EVENT = """{
    seq: 'BIGINT',
    record: 'STRUCT(
        metadata STRUCT(uid VARCHAR, event_code VARCHAR), "time" BIGINT, class_uid INTEGER, activity_id INTEGER,
        status VARCHAR, status_detail VARCHAR,
        actor STRUCT("user" STRUCT(name VARCHAR, uid VARCHAR, "type" VARCHAR, groups STRUCT(name VARCHAR)[])),
        src_endpoint STRUCT(hostname VARCHAR, ip VARCHAR),
        resources STRUCT("type" VARCHAR, name VARCHAR)[],
        query_info STRUCT(query_string VARCHAR), unmapped STRUCT("rows" BIGINT)
    )'
}"""


def land_own(connection: duckdb.DuckDBPyConnection, settings: Settings) -> int:
    """Land what the audit log has gained since the last time; returns how many rows. The raw tables exist."""
    path = Home.of(settings).audit
    return _land(connection, path, "warehouse") if path.exists() else 0


def land_snowflake(connection: duckdb.DuckDBPyConnection, rows: Iterable[Mapping[str, Any]]) -> int:
    """Land rows of Snowflake's LOGIN_, QUERY_ and ACCESS_HISTORY; what has landed before is left out.

    Raises:
        ValueError: a row of another view.
    """
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "events.jsonl"
        with lines.open("w", encoding="utf-8") as file:
            for event in from_snowflake(rows):
                file.write(json.dumps({"seq": None, "record": event}) + "\n")
        return _land(connection, lines, "snowflake")


def _land(connection: duckdb.DuckDBPyConnection, path: Path, system: str) -> int:
    row = connection.execute(
        f"""
        insert into {TABLE}
        with lines as (
            select seq, record
            from read_json($path, format = 'newline_delimited', columns = {_EVENT}, ignore_errors = true)
            where record.metadata.uid is not null
                and ($system <> 'warehouse' or seq > (
                    select coalesce(max(log_sequence), 0) from {TABLE} where event_system = 'warehouse'
                ))
        ),
        resources as (
            select
                *,
                unnest(case when len(record.resources) > 0 then record.resources else [null] end) as resource,
                unnest(range(1, greatest(len(record.resources), 1) + 1)) as resource_number
            from lines
        )
        select
            $system, record.metadata.uid, resource_number, seq, make_timestamp(record."time" * 1000)::timestamptz,
            record.metadata.event_code, record.class_uid, record.activity_id, record.status, record.status_detail,
            record.actor."user".name, record.actor."user".uid, record.actor."user"."type",
            record.actor."user".groups[1].name, record.src_endpoint.hostname, record.src_endpoint.ip,
            resource."type", resource.name, record.query_info.query_string, record.unmapped."rows"
        from resources
        anti join {TABLE} as landed
            on landed.event_system = $system and landed.event_uid = resources.record.metadata.uid
        """,
        {"path": str(path), "system": system},
    ).fetchone()
    return int(row[0]) if row else 0
