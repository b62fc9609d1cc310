"""Attacks on the platform, as somebody would try them who knows how it is built."""

from __future__ import annotations

import gzip
import json
import resource
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jinja2 import Environment
from typer.testing import CliRunner

from ingestion import boundary, schema
from ingestion.run import ingest
from tests.conftest import MakeSettings
from tests.integration.landed_home import NOWHERE, drop, query
from tests.security.few_marts import publish_few_marts
from tests.unit.test_boundary import land_document
from warehouse.cli import context
from warehouse.cli.app import app
from warehouse.core.database import open_warehouse
from warehouse.core.errors import LoadIncomplete, WarehouseError
from warehouse.core.keys import file_key, warehouse_key
from warehouse.core.paths import Home
from warehouse.core.settings import PROJECT_ROOT, Settings
from warehouse.dbt import dbt_environment, run_dbt
from warehouse.exports import open_export
from warehouse.privacy.audit import tail
from warehouse.privacy.canaries import CANARIES, free_text
from warehouse.privacy.scan import Needle, Scan
from warehouse.query import QueryError, ask, run_query

FILE_KEYS = ("published", "lake", "vault", "token_v1", "audit")


@pytest.fixture
def settings(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    """A home with keys."""
    return make_settings(tmp_path / "home", drops_settle_seconds=0)


@pytest.fixture(scope="module")
def published(make_settings: MakeSettings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A few marts, published."""
    made = make_settings(tmp_path_factory.mktemp("attacked"))
    publish_few_marts(made)
    return made


# --- keys through dbt ------------------------------------------------------------------------------------------------


def test_dbt_is_given_one_key_and_no_address(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POSTGRES_URI", "MONGODB_URI", "KAFKA_PASSWORD", "AWS_SECRET_ACCESS_KEY", "ALERT_WEBHOOK"):
        monkeypatch.setenv(name, "kanari")
    environment = dbt_environment(settings)
    secrets = {file_key(settings, name) for name in FILE_KEYS} | {"kanari"}
    assert not secrets & set(environment.values())
    assert {name for name, value in environment.items() if value == warehouse_key(settings)} == {
        "DBT_ENV_SECRET_WAREHOUSE_KEY"
    }


@pytest.fixture(scope="module")
def parsed(make_settings: MakeSettings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home in which dbt keeps what it has parsed, and everything it has written."""
    made = make_settings(tmp_path_factory.mktemp("parsed"))
    with open_warehouse(made):
        pass
    return made


@pytest.mark.parametrize(
    "jinja",
    [
        "select '{{ env_var(\"DBT_ENV_SECRET_WAREHOUSE_KEY\") }}' as k",
        "{% do log(env_var('DBT_ENV_SECRET_WAREHOUSE_KEY'), info=true) %} select 1 as k",
        "{{ exceptions.raise_compiler_error(env_var('DBT_ENV_SECRET_WAREHOUSE_KEY')) }}",
        "{% do print(target) %}{% do print(target.get('attach')) %} select 1 as k",
    ],
)
def test_a_model_cannot_take_the_key_out(parsed: Settings, jinja: str) -> None:
    said = ""
    try:
        run_dbt(parsed, ["compile", "--inline", jinja], progress=lambda text: None)
    except WarehouseError as error:
        said = str(error)
    home = Home.of(parsed)
    key = warehouse_key(parsed).encode()
    written = [path for folder in (home.logs, home.dbt_target) for path in folder.rglob("*") if path.is_file()]
    assert written
    assert key.decode() not in said
    assert not [path.name for path in written if key in path.read_bytes()]


# --- personal data in messages ---------------------------------------------------------------------------------------


def test_a_failed_cast_names_the_column_and_never_the_value(settings: Settings) -> None:
    header = (
        "customer_id,first_name,last_name,email,phone,date_of_birth,location_id,kyc_status,marketing_consent,"
        "consent_updated_at,created_at,updated_at\n"
    )
    email, card = CANARIES["email"], CANARIES["card_number"]
    rows = f"C1,a,b,{email},1,{email},L1,verified,{card},{email},{card},2024-01-01T00:00:00Z\n"
    drop(settings, "oltp/customer/x.csv", (header + rows).encode())
    said: list[str] = []
    report = ingest(settings, NOWHERE, run_id="test", sources=("files",), progress=said.append)
    reasons = query(settings, "select reason, payload from raw_ops.quarantine")
    assert len(reasons) == 1
    assert reasons[0][0].startswith("type: ")
    scan = Scan([Needle(name, value) for name, value in CANARIES.items()])
    scan.content("said", "everything", json.dumps([said, report.to_dict(), reasons]).encode())
    for folder in ("dlt", "logs", "runs"):
        scan.folder(folder, Home.of(settings).root / folder)
    assert scan.report.findings == []


@pytest.mark.parametrize(
    "sql",
    [
        "select currency_code::int from public.dim_currency",
        "select error(currency_code) from public.dim_currency",
        "select json_extract(trade_name, '$.a') from public.dim_merchant_history",
        "select strptime(trade_name, '%Y') from public.dim_merchant_history",
    ],
)
def test_the_error_of_a_query_quotes_no_row(published: Settings, sql: str) -> None:
    with pytest.raises(QueryError) as failed:
        run_query(published, sql)
    assert "Corner" not in str(failed.value)
    assert "EUR" not in str(failed.value)


# --- out of the locked room ------------------------------------------------------------------------------------------

ESCAPES = (
    "select * from read_text('/etc/passwd')", "select * from read_csv('/etc/passwd')", "select * from '/etc/passwd'",
    "copy public.dim_currency to '{place}/stolen.csv'", "attach '{place}/x.duckdb' as x",
    "install httpfs", "load spatial",
    "set enable_external_access = true", "set lock_configuration = false", "reset lock_configuration",
    "pragma add_parquet_key('a', 'b')", "select getenv('DBT_ENV_SECRET_WAREHOUSE_KEY')",
    "export database '{place}/stolen'", "create table public.t as select 1", "delete from public.dim_currency",
    "update public.dim_currency set currency_code = 'X'", "drop table public.dim_currency", "detach olap_strip_project",
    "select 1; copy public.dim_currency to '{place}/stolen.csv'", "select * from glob('/*')",
    "create macro x() as 1", "call pragma_version(); attach ':memory:' as y (type sqlite)",
    "select * from read_parquet('https://example.org/x')", "create secret (type s3, key_id 'a', secret 'b')",
)  # fmt: skip


@pytest.mark.parametrize("sql", ESCAPES)
def test_no_statement_gets_out_of_the_published_copy(published: Settings, tmp_path: Path, sql: str) -> None:
    before = Home.of(published).published.read_bytes()
    with pytest.raises(QueryError):
        run_query(published, sql.format(place=tmp_path))
    assert Home.of(published).published.read_bytes() == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sql", ESCAPES)
def test_nor_out_of_a_roles_export(published: Settings, tmp_path: Path, sql: str) -> None:
    with pytest.raises(QueryError), open_export(published, "analyst") as connection:
        ask(connection, sql.format(place=tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "role", ["analyst'; drop table x; --", "../../keys/vault", "analyst\x00", "ANALYST", "", "analyst/../auditor", "*"]
)
def test_a_role_is_a_name_and_nothing_else(published: Settings, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "get_settings", lambda: published)
    monkeypatch.setattr("warehouse.cli.app._settings", lambda target=None: published)
    before = len(tail(published, 1000))
    result = CliRunner().invoke(app, ["query", "select 1", "--role", role])
    assert result.exit_code != 0
    assert len(tail(published, 1000)) == before, "what is no role's name is not written into the log"
    assert not list(Home.of(published).root.rglob("*drop table*"))


# --- averages --------------------------------------------------------------------------------------------------------


def suppressed(measure: str, size: str, **more: Any) -> str:
    text = (PROJECT_ROOT / "macros" / "masking" / "suppress_small_groups.sql").read_text()
    made = Environment(autoescape=False).from_string(text).module  # noqa: S701  # SQL, not HTML
    return str(made.suppress_small_groups(measure, size, **more))


def test_no_average_of_few_and_none_of_alike() -> None:
    connection = duckdb.connect()
    connection.execute("""
        create table payer as
        select 'nine' as place, i as person, i * 1.0 as salary, i % 3 as illness from range(9) as r(i)
        union all select 'ten', i, i * 1.0, i % 3 from range(10) as r(i)
        union all select 'alike', i, i * 1.0, 1 from range(50) as r(i)
    """)
    sql = suppressed("avg(salary)", "count(distinct person)", diversity="count(distinct illness)")
    rows = dict(connection.execute(f"select place, {sql} from payer group by place").fetchall())
    assert rows["nine"] is None
    assert rows["alike"] is None
    assert rows["ten"] is not None


@pytest.mark.parametrize("narrowing", ["person = 3", "person < 9", "salary = 3 or salary = 4", "person in (1, 2, 3)"])
def test_a_group_cannot_be_narrowed_down_to_one(narrowing: str) -> None:
    connection = duckdb.connect()
    connection.execute("create table payer as select i as person, i * 1.0 as salary from range(50) as r(i)")
    sql = suppressed("avg(salary)", "count(distinct person)")
    assert connection.execute(f"select {sql} from payer where {narrowing}").fetchone() == (None,)


def test_rows_of_one_person_are_not_a_crowd() -> None:
    connection = duckdb.connect()
    sql = suppressed("avg(i)", "count(distinct 1)")
    assert connection.execute(f"select {sql} from range(1000) as r(i)").fetchone() == (None,)


# --- smuggling through documents -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def landing() -> duckdb.DuckDBPyConnection:
    """A connection with the boundary."""
    connection = duckdb.connect()
    boundary.install(connection, bytes(32))
    return connection


def deep(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = {"a": [value]}
    return value


SMUGGLED: dict[str, Any] = {
    "undeclared": {"notes": free_text()},
    "as a key": {free_text(): 1},
    "deep": {"x": deep(free_text(), 40)},
    "where a number belongs": {"rating": {"note": free_text()}},
    "where text belongs": {"channel": [free_text()], "language": {"a": free_text()}},
    "text in text": {"comment": json.dumps({"comment": json.dumps({"comment": free_text()})})},
    "forbidden, as it is": {"cvv": CANARIES["card_number"]},
    "forbidden, in capitals": {"CVV": CANARIES["card_number"], "Cvc2": CANARIES["card_number"]},
    "forbidden, below": {"payment": {"card": {"cvv": CANARIES["card_number"]}}},
    "like our own": {"_unknown": free_text(), "comment_token": free_text(), "_id": free_text()},
    "with a path": {"$.comment": free_text(), "a/b~c": free_text(), "..": free_text(), "": free_text()},
}


@pytest.mark.parametrize("how", SMUGGLED)
def test_nothing_is_smuggled_through_a_document(landing: duckdb.DuckDBPyConnection, how: str) -> None:
    document = {"customer_id": "CUST1", "transaction_id": "TX1", **SMUGGLED[how]}
    landed = land_document(landing, schema.tables("mongodb")["customer_feedback"], document)
    scan = Scan([Needle(name, value) for name, value in CANARIES.items()])
    scan.content("landed", "document", landed["text"].encode())
    assert scan.report.findings == []


# --- drops -----------------------------------------------------------------------------------------------------------


def test_a_drop_cannot_point_out_of_its_folder(settings: Settings, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"_id": {"$oid": "650000000000000000000001"}, "comment": "secret"}\n')
    folder = Home.of(settings).drops / "mongodb" / "customer_feedback"
    folder.mkdir(parents=True)
    (folder / "link.jsonl").symlink_to(secret)
    (folder / "key.jsonl").symlink_to(Home.of(settings).keys / "vault.key")
    (folder / "hard.jsonl").hardlink_to(secret)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "theirs.jsonl").write_text('{"_id": {"$oid": "650000000000000000000003"}, "business_name": "secret"}\n')
    (folder.parent / "merchants").symlink_to(outside)
    for name in ("..%2f..%2fkeys.jsonl", "a\nb.jsonl", "$(touch x).jsonl", "'; drop table x; --.jsonl"):
        drop(settings, f"mongodb/customer_feedback/{name}", b'{"_id": {"$oid": "650000000000000000000002"}}\n')
    said = ""
    try:
        ingest(settings, NOWHERE, run_id="test", sources=("files",))
    except LoadIncomplete as error:
        said = str(error)
    for name in (
        "customer_feedback/link.jsonl",
        "customer_feedback/key.jsonl",
        "customer_feedback/hard.jsonl",
        "merchants",
    ):
        assert f"mongodb/{name} is a link" in said
    assert "\nb.jsonl" not in said
    assert secret.exists()
    assert (outside / "theirs.jsonl").exists()
    assert file_key(settings, "vault")
    landed = query(settings, "select document::varchar from raw_mongodb.customer_feedback")
    landed += query(settings, "select document::varchar from raw_mongodb.merchants")
    assert not [text for (text,) in landed if "secret" in text]
    assert query(settings, "select count(*) from information_schema.tables where table_schema = 'raw_oltp'") > [(5,)]


DOCUMENT = b'{"_id": {"$oid": "650000000000000000000001"}, "comment": "' + b"x" * 2**20 + b'"}\n'
"""A document in order: of files made of it, only their size is wrong."""


def customers_parquet(rows: int, name: pa.Scalar, *, dictionary: bool) -> bytes:
    """One customer, ever again. Unpacked, each takes the room of their name, or with a dictionary next to none."""
    customer = {leaf.name: pa.nulls(rows, pa.string()) for leaf in schema.tables("oltp")["customer"].columns}
    customer["customer_id"] = pa.repeat(name, rows)
    sink = pa.BufferOutputStream()
    whole = {"row_group_size": rows, "max_rows_per_page": rows, "write_batch_size": rows}
    pq.write_table(pa.table(customer), sink, compression="zstd", use_dictionary=dictionary, **whole)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("zeros.jsonl.gz", "is UTF-16"),
        ("nested.jsonl.gz", "is UTF-16"),
        ("brackets.jsonl.gz", "has a line of more than"),
        ("header.csv.gz", "lacks the columns"),
        ("documents.jsonl.gz", "decompresses to far more"),
        ("documents.jsonl.zst", "decompresses to far more"),
        ("values.parquet", "decompresses to far more"),
        ("rows.parquet", "decompresses to far more"),
    ],
)
def test_a_bomb_is_refused_in_bounded_memory(settings: Settings, name: str, reason: str) -> None:
    content = {
        "zeros.jsonl.gz": lambda: gzip.compress(b"\0" * 2**28),
        "nested.jsonl.gz": lambda: gzip.compress(gzip.compress(b"\0" * 2**28)),
        "brackets.jsonl.gz": lambda: gzip.compress(b"[" * 2**27),
        "header.csv.gz": lambda: gzip.compress(b"customer_id\n" + b"x" * 2**28),
        "documents.jsonl.gz": lambda: gzip.compress(DOCUMENT * 2**8),
        "documents.jsonl.zst": lambda: pa.compress(DOCUMENT * 2**8, codec="zstd", asbytes=True),
        "values.parquet": lambda: customers_parquet(2**8, pa.scalar("x" * 2**20), dictionary=False),
        "rows.parquet": lambda: customers_parquet(2**22, pa.scalar("CUSTOMER1"), dictionary=True),
    }[name]()
    assert len(content) < 2**20
    place = "oltp/customer" if name.endswith((".csv.gz", ".parquet")) else "mongodb/customer_feedback"
    path = drop(settings, f"{place}/{name}", content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LoadIncomplete, match=reason):
        ingest(settings, NOWHERE, run_id="test", sources=("files",))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB: less than a GiB more
    assert path.exists()
    assert query(settings, "select sum(landed_rows) from raw_ops.load_manifest") in ([(None,)], [(0,)])
