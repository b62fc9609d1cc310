from __future__ import annotations
import duckdb
from expectations.rules import Suite


def suites(connection: duckdb.DuckDBPyConnection) -> list[Suite]:
    return []
