"""Run fakesnow with three repairs, so that transactions are Snowflake's.

* It executes BEGIN and then fails to describe its (empty) result.
* It gives no master token, without which the driver does not end its session.
* It forgets a session that ends, but leaves its open transaction open. Snowflake rolls it back.

Started as a program of its own by `fakesnow_server.running`: `serve_fakesnow.py PORT`.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import duckdb
import uvicorn
from fakesnow.cursor import FakeSnowflakeCursor
from fakesnow.server import app
from starlette.responses import JSONResponse

describe_result = FakeSnowflakeCursor._describe_last_sql


def describe_unless_begin(cursor: Any) -> list[Any]:
    """What fakesnow does, but no columns for BEGIN."""
    return [] if (cursor._last_sql or "").upper().startswith("BEGIN") else describe_result(cursor)


class Sessions(dict[str, Any]):
    """The open sessions, by token. One that goes rolls back first."""

    def __delitem__(self, token: str) -> None:
        connection = self.pop(token)
        with suppress(duckdb.TransactionException):  # there was no transaction
            connection._duck_conn.rollback()
        connection.close()


class Answer(JSONResponse):
    """An answer; that to a login names a master token."""

    def render(self, content: Any) -> bytes:
        data = content.get("data") or {}
        if "token" in data:
            data["masterToken"] = data["token"]
        return super().render(content)


if __name__ == "__main__":
    FakeSnowflakeCursor._describe_last_sql = describe_unless_begin
    server = sys.modules["fakesnow.server"]
    server.sessions = Sessions()
    server.JSONResponse = Answer
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="info")
