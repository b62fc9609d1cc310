"""Reading the published warehouse: any SQL, on a connection that can do nothing but read it.

Nothing is refused by looking at the text. The file is attached read-only and the connection locked
(:func:`warehouse.core.database.open_published`): no other file, no network, no setting, no extension.
"""

from __future__ import annotations

import difflib
import io
import re
from decimal import Decimal
from typing import BinaryIO, Literal, get_args

import duckdb
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from rich.console import Console
from rich.table import Table
from rich.text import Text

from warehouse.core.database import open_published
from warehouse.core.errors import WarehouseError
from warehouse.core.settings import CATALOG, Settings

Format = Literal["table", "csv", "json", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)

UNCHANGED = "the published warehouse is read-only and unchanged"

# These come from reading the statement, before any row is read: their messages cannot quote data.
_ABOUT_THE_STATEMENT = (duckdb.ParserException, duckdb.SyntaxException, duckdb.BinderException, duckdb.CatalogException)


class QueryError(WarehouseError):
    """A query could not be run."""

    exit_code = 8


def run_query(settings: Settings, sql: str, *, tables: list[str] | None = None) -> pa.Table:
    """Run SQL on the published warehouse, where the catalog is `olap_strip_project` and the schema `public`.

    Args:
        settings: whose warehouse.
        sql: any statement; of several, the last one's rows are returned.
        tables: filled with the published tables that the statement names, also when it fails.

    Returns:
        The rows. A statement without rows gives an empty table.

    Raises:
        ConfigurationError: nothing has been published yet.
        QueryError: the statement failed; the message holds no value of any row.
    """
    with open_published(settings) as connection:
        return ask(connection, sql, tables=tables)


def ask(connection: duckdb.DuckDBPyConnection, sql: str, *, tables: list[str] | None = None) -> pa.Table:
    """`run_query` on a connection that is open and locked down already, such as a role's export."""
    if tables is not None:
        tables += tables_named(connection, sql)
    try:
        result = connection.execute(sql)
        return result.to_arrow_table() if result.description else pa.table({})
    except duckdb.Error as error:
        raise _explain(connection, error) from None


def tables_named(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    """`public.dim_product`, …: the tables whose names stand anywhere in a statement, as words.

    Words and not the parsed tree: a name given to `query_table` or inside a nested statement counts too. What is
    merely a word of the statement, such as a literal, is never returned unless a table has that name.
    """
    words = {word.lower() for word in re.findall(r"\w+", sql)}
    found = connection.execute(
        "select table_schema, table_name from information_schema.tables where table_catalog = ? order by all", [CATALOG]
    ).fetchall()
    return [f"{schema}.{table}" for schema, table in found if table.lower() in words]


def write(table: pa.Table, output_format: Format, stream: BinaryIO) -> None:
    """Write rows in one of FORMATS.

    `csv` and `parquet` are exact. `json` is an array of objects, with decimals as text so that no digit is lost and
    times in ISO 8601. `table` is for people: control characters are replaced, so that no value can drive a terminal.
    """
    if output_format == "csv":
        pa.csv.write_csv(table, stream)
    elif output_format == "parquet":
        pa.parquet.write_table(table, stream, compression="zstd")
    elif output_format == "json":
        stream.write(orjson.dumps(table.to_pylist(), default=_as_json, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z))
        stream.write(b"\n")
    else:
        _write_for_people(table, stream)


def _write_for_people(table: pa.Table, stream: BinaryIO) -> None:
    grid = Table(caption=f"{table.num_rows} row{'' if table.num_rows == 1 else 's'}", caption_justify="left")
    for field in table.schema:
        is_number = (
            pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type)
        )
        grid.add_column(Text(_printable(field.name)), justify="right" if is_number else "left")
    for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
        grid.add_row(*(Text("" if value is None else _printable(str(value))) for value in row))
    text = io.TextIOWrapper(stream, encoding="utf-8", write_through=True)
    try:
        Console(file=text).print(grid)
    finally:
        text.detach()  # the stream belongs to the caller and stays open


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _as_json(value: object) -> str | int:
    if isinstance(value, Decimal):
        is_plain_integer = value.as_tuple().exponent == 0 and abs(value) < 2**53
        return int(value) if is_plain_integer else str(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def _explain(connection: duckdb.DuckDBPyConnection, error: duckdb.Error) -> QueryError:
    message = str(error)
    missing = re.search(r"Table with name (\S+) does not exist", message)
    if missing:
        return _unknown_table(connection, missing[1])
    if isinstance(error, duckdb.PermissionException | duckdb.InvalidInputException) and _is_locked_door(message):
        return QueryError(
            "this connection reads the published warehouse and nothing else",
            kept=UNCHANGED,
            todo="files, network, settings and extensions are closed on purpose; `--format` writes results",
        )
    if isinstance(error, _ABOUT_THE_STATEMENT):
        return QueryError(message.split("\n\n")[0].strip(), kept=UNCHANGED, todo="correct the statement")
    return QueryError(
        f"the query failed while it ran: {type(error).__name__}",
        kept=UNCHANGED,
        todo="a cast or a calculation does not fit some value (which is not shown here); try_cast gives null instead",
    )


def _is_locked_door(message: str) -> bool:
    return any(sign in message for sign in ("disabled", "read-only", "locked", "not allowed"))


def _unknown_table(connection: duckdb.DuckDBPyConnection, name: str) -> QueryError:
    tables = connection.execute(
        "select table_schema, table_name from information_schema.tables where table_catalog = ? order by all", [CATALOG]
    ).fetchall()
    readable = {table: f"{schema}.{table}" for schema, table in tables}
    close = difflib.get_close_matches(name.rsplit(".", 1)[-1].strip('"!').lower(), readable, n=3, cutoff=0.5)
    todo = (
        f"did you mean {' or '.join(readable[table] for table in close)}?" if close else "`show all tables` lists them"
    )
    return QueryError(f"there is no published table {name.strip('!')}", kept=UNCHANGED, todo=todo)
