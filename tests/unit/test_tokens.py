"""Pseudonyms: SQL equals Python equals RFC 4231, and an unset key raises."""

from __future__ import annotations

import hashlib
import hmac
import shutil
import time
from collections.abc import Iterator

import duckdb
import fakesnow
import pandas as pd
import pyarrow as pa
import pytest
import snowflake.connector.pandas_tools
from hypothesis import example, given
from hypothesis import strategies as st
from snowflake.connector import SnowflakeConnection

from tests.conftest import RecordFigure
from warehouse.privacy import tokens

KEY = bytes(range(32))
COUNT = 100_000
MANY = 1_000_000
DOMAINS = ("email", "phone", "pan", "ip", "postal_code", "name", "birth_date", "text", "unknown")

RFC_4231 = [  # test cases 1, 2, 3, 4, 6, 7: (key, data, HMAC-SHA-256)
    ("0b" * 20, b"Hi There".hex(), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (
        b"Jefe".hex(),
        b"what do ya want for nothing?".hex(),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
    ("aa" * 20, "dd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    (
        "0102030405060708090a0b0c0d0e0f10111213141516171819",
        "cd" * 50,
        "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
    ),
    (
        "aa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First".hex(),
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
]


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    tokens.install(connection, KEY)
    return connection


@pytest.fixture
def session() -> Iterator[SnowflakeConnection]:
    with fakesnow.patch(), snowflake.connector.connect(database="tokens", schema="main") as opened:
        yield opened


@pytest.mark.parametrize(("key", "data", "expected"), RFC_4231)
def test_sql_construction_equals_rfc_4231(key: str, data: str, expected: str) -> None:
    connection = duckdb.connect()
    tokens.install(connection, bytes.fromhex(key))
    found = connection.execute(
        "select sha256(getvariable('token_outer') || unhex(sha256(getvariable('token_inner') || unhex($data))))",
        {"data": data},
    ).fetchone()
    assert found == (expected,)


@example(domain="name", value="\x00\x80")
@example(domain="text", value="a\x00e\u0301")
@example(domain="email", value="\u212a@X")  # the Kelvin sign, whose lower case is an ASCII letter elsewhere
@example(domain="name", value="A\u00a0")
@example(domain="name", value="A\tB  C")
@example(domain="ip", value="FE80::1 /64")
@example(domain="postal_code", value="\u0131 a-b")
@example(domain="email", value="")
@given(domain=st.sampled_from(DOMAINS), value=st.text(st.characters(codec="utf-8"), max_size=80))
def test_sql_equals_python(connection: duckdb.DuckDBPyConnection, domain: str, value: str) -> None:
    found = connection.execute("select pseudonymise($d, $v)", {"d": domain, "v": value}).fetchone()
    assert found == (tokens.pseudonym(KEY, domain, value),)


def test_python_is_hmac() -> None:
    expected = hmac.new(KEY, b"email|a@example.org", hashlib.sha256).hexdigest()
    assert tokens.pseudonym(KEY, "email", " A@Example.org ") == f"v1:{expected}"


def test_two_spellings_share_a_token_and_two_domains_do_not() -> None:
    assert tokens.pseudonym(KEY, "pan", "4111 1111-1111 1111") == tokens.pseudonym(KEY, "pan", "4111111111111111")
    assert tokens.pseudonym(KEY, "pan", "4111111111111111") != tokens.pseudonym(KEY, "phone", "4111111111111111")


def test_null_stays_null(connection: duckdb.DuckDBPyConnection) -> None:
    assert connection.execute("select pseudonymise('email', null)").fetchone() == (None,)
    assert tokens.pseudonym(KEY, "email", None) is None


def test_an_unset_key_raises_and_other_connections_do_not_see_it(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("reset variable token_inner")
    try:
        with pytest.raises(duckdb.Error, match="token key is not set"):
            connection.execute("select pseudonymise('email', 'a@example.org')").fetchone()
    finally:
        tokens.install(connection, KEY)
    assert connection.cursor().execute("select getvariable('token_inner')").fetchone() == (None,)


def test_a_hundred_thousand_values_are_the_same_on_every_engine(
    connection: duckdb.DuckDBPyConnection, session: SnowflakeConnection, record_figure: RecordFigure
) -> None:
    """Python's hmac, DuckDB's macro, and the same construction from core functions on Snowflake's (fakesnow's) own."""
    domains, values, expected = _many()
    given = pa.table({"number": range(COUNT), "domain": domains, "value": values})  # noqa: F841  # read by name
    in_duckdb = []
    for domain in DOMAINS:  # the macro's domain is a constant wherever landing uses it
        in_duckdb += connection.execute(
            f"select number, pseudonymise('{domain}', value) from given where domain = '{domain}'"
        ).fetchall()
    assert [token for _, token in sorted(in_duckdb)] == expected

    messages = _messages(domains, values)
    session.cursor().execute("create or replace table message (number integer, hexadecimal varchar)")
    snowflake.connector.pandas_tools.write_pandas(
        session, pd.DataFrame(messages, columns=["NUMBER", "HEXADECIMAL"]), "MESSAGE"
    )
    inner, outer = _pads()
    in_snowflake = (
        session.cursor()
        .execute(f"""
        select 'v1:' || sha2(
            hex_decode_binary('{outer}' || sha2(hex_decode_binary('{inner}' || hexadecimal), 256)), 256
        ) from message order by number
    """)
        .fetchall()
    )
    assert [token for (token,) in in_snowflake] == expected
    record_figure("HMAC equal in Python, DuckDB and fakesnow", f"{len(expected):,} of {COUNT:,} values", "100,000")


@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs a JVM, and there is no `java` on the path")
def test_a_hundred_thousand_values_are_the_same_on_spark(record_figure: RecordFigure) -> None:
    """Where Spark is installed (`pip install pyspark`, which the lock does not hold: 450 MB)."""
    session = pytest.importorskip("pyspark.sql", reason="pyspark is not installed (optional: 450 MB)").SparkSession
    domains, values, expected = _many()
    inner, outer = _pads()
    spark = session.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        spark.createDataFrame(_messages(domains, values), ["number", "hexadecimal"]).createOrReplaceTempView("message")
        found = spark.sql(f"""
            select 'v1:' || sha2(unhex('{outer}' || sha2(unhex('{inner}' || hexadecimal), 256)), 256)
            from message order by number
        """).collect()
    finally:
        spark.stop()
    assert [token for (token,) in found] == expected
    record_figure("HMAC equal in Python and Spark", f"{len(expected):,} of {COUNT:,} values", "100,000")


def _many() -> tuple[list[str], list[str], list[str]]:
    """Domains, values, and the tokens that Python gives them."""
    domains = [DOMAINS[number % len(DOMAINS)] for number in range(COUNT)]
    values = [f" {number:x}\u00e9 User.{number}@Example.ORG \u00c5{number * 7919} " for number in range(COUNT)]
    return domains, values, [tokens.pseudonym(KEY, *given) for given in zip(domains, values, strict=True)]


def _messages(domains: list[str], values: list[str]) -> list[tuple[int, str]]:
    """Number and hexadecimal bytes of what is hashed: canonical values, as the engines share no Unicode rules."""
    return [
        (number, f"{domain}|{tokens.canonical(domain, value)}".encode().hex())
        for number, (domain, value) in enumerate(zip(domains, values, strict=True))
    ]


def _pads() -> tuple[str, str]:
    block = KEY.ljust(64, b"\0")
    return bytes(byte ^ 0x36 for byte in block).hex(), bytes(byte ^ 0x5C for byte in block).hex()


def test_a_million_values_have_a_million_tokens(
    connection: duckdb.DuckDBPyConnection, record_figure: RecordFigure
) -> None:
    connection.execute(
        f"create temp table people as select 'person' || i || '@example.org' as email from range({MANY}) t (i)"
    )
    started = time.perf_counter()
    row = connection.execute("select count(distinct pseudonymise('email', email)) from people").fetchone()
    rate = MANY / (time.perf_counter() - started)
    record_figure(
        "HMAC in DuckDB, distinct values counted too", f"{rate:,.0f} rows/s", "500,000 rows/s on 2 quiet cores"
    )
    assert row == (MANY,)
