"""The reports after an erasure: those that count people are worked out anew, by the SQL that the last build compiled.

Facts keep their amounts, so that a report changes only where it reads a column that pointed at the person, or a table
that lost rows of theirs. It needs no start of dbt; where there is no compiled SQL, or it does not fit, dbt runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import duckdb

from warehouse.core.database import open_warehouse
from warehouse.core.paths import Home
from warehouse.core.replace import replace_table
from warehouse.core.settings import CATALOG, Settings
from warehouse.dbt import run_dbt
from warehouse.erasure.plan import Plan
from warehouse.erasure.warehouse_file import loses_rows
from warehouse.privacy.members import points_at_person

REPORTS = "marts/reporting/"
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def rebuild_reports(settings: Settings, plan: Plan) -> dict[str, int]:
    """Work the reports out anew that may have changed, if there are any. Returns counts."""
    with open_warehouse(settings, memory_limit=settings.memory_limit) as connection:
        columns = _columns(connection)
        if ("public", "fct_sales") not in columns:
            return {"models": 0}
        try:
            nodes = _nodes(settings)
            affected = affected_reports(nodes, columns)
            for name in affected:
                _write_anew(connection, nodes[name], columns)
            return {"models": len(affected)}
        except (KeyError, FileNotFoundError, json.JSONDecodeError, duckdb.Error):
            pass  # there is another way
    result = run_dbt(settings, ["run", "--select", f"path:models/{REPORTS.rstrip('/')}"])
    return {"models": sum(result.counts.values())}


def affected_reports(nodes: Mapping[str, Mapping[str, Any]], columns: Mapping[tuple[str, str], list[str]]) -> list[str]:
    """The reports that an erasure may change, each after those it reads.

    Args:
        nodes: of dbt's manifest, by name, with their compiled SQL.
        columns: table → its columns, of what is built.

    Raises:
        KeyError: a report has no compiled SQL.
    """
    found: list[str] = []
    for name, node in sorted(nodes.items(), key=lambda item: len(_above(nodes, item[0]))):
        if node["resource_type"] != "model" or not node["path"].startswith(REPORTS):
            continue
        sql, read = _reads(nodes, name)
        tables = [(nodes[one]["schema"], nodes[one]["alias"]) for one in read]
        if (
            any(map(points_at_person, _WORD.findall(sql)))
            or any(loses_rows(table, columns.get(table, [])) for table in tables)
            or read & set(found)
        ):
            found.append(name)
    return found


def _reads(nodes: Mapping[str, Mapping[str, Any]], name: str) -> tuple[str, set[str]]:
    """A model's SQL with that of the views it reads, and every table read."""
    sql, read = nodes[name]["compiled_code"], set()
    for above in _parents(nodes, name):
        read.add(above)
        if nodes[above]["config"]["materialized"] in {"view", "ephemeral"}:
            more, further = _reads(nodes, above)
            sql, read = f"{sql}\n{more}", read | further
    return sql, read


def _above(nodes: Mapping[str, Mapping[str, Any]], name: str) -> set[str]:
    found: set[str] = set()
    due = [name]
    while due:
        new = set(_parents(nodes, due.pop())) - found
        found |= new
        due += new
    return found


def _parents(nodes: Mapping[str, Mapping[str, Any]], name: str) -> list[str]:
    return [one for one in nodes[name]["depends_on"].get("nodes", ()) if one in nodes]


def _write_anew(
    connection: duckdb.DuckDBPyConnection, node: Mapping[str, Any], columns: Mapping[tuple[str, str], list[str]]
) -> None:
    name = (node["schema"], node["alias"])
    shown = ", ".join(f'"{column}"' for column in columns[name])
    replace_table(connection, CATALOG, name, lambda _: f"select {shown} from ({node['compiled_code']})")


def _nodes(settings: Settings) -> dict[str, dict[str, Any]]:
    """The manifest's nodes. It has the SQL of what dbt compiled last; what it compiled before that lies beside it."""
    target = Home.of(settings).dbt_target
    manifest = json.loads((target / "manifest.json").read_text(encoding="utf-8"))["nodes"]
    nodes: dict[str, dict[str, Any]] = {
        name: node for name, node in manifest.items() if node["resource_type"] in {"model", "seed", "snapshot"}
    }
    for node in nodes.values():
        compiled = target / "compiled" / node["package_name"] / node["original_file_path"]
        if not node.get("compiled_code") and compiled.suffix == ".sql" and compiled.exists():
            node["compiled_code"] = compiled.read_text(encoding="utf-8")
    return nodes


def _columns(connection: duckdb.DuckDBPyConnection) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for schema, table, column in connection.execute(
        "select schema_name, table_name, column_name from duckdb_columns() where database_name = ? "
        "order by schema_name, table_name, column_index",
        [CATALOG],
    ).fetchall():
        found.setdefault((schema, table), []).append(column)
    return found
