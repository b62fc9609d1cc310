"""HMAC tokens in SQL, beside SHA-256 of the same column. `BENCH_TOKENS` sets the number of values."""

from __future__ import annotations

import os
from decimal import Decimal

import duckdb

from benchmarks.harness import Case, Outcome, Row, Stopwatch, interleaved, paired
from warehouse.privacy import tokens

VALUES = int(os.environ.get("BENCH_TOKENS", "1000000"))
REPEATS = int(os.environ.get("BENCH_REPEATS", "3"))
DOMAINS = {
    "email": "'Person' || i * 7919 || '@Example.com'",
    "name": "'Anna Example ' || i",
    "ip": "(i % 250) || '.1.' || (i % 199) || '.7'",
}


def measure() -> list[Row]:
    """One row per kind of value."""
    rows = []
    for domain, value in DOMAINS.items():
        cases: dict[str, Case] = {"token": (hashed, (domain, value)), "digest": (hashed, (None, value))}
        found = interleaved(cases, (VALUES, Decimal(0)), REPEATS)
        token, digest = found["token"], found["digest"]
        ratio = 1 / paired(token, digest)
        said = token.told("tokens")
        rows += [
            Row(f"token of an {domain}" if domain != "name" else "token of a name", said, "", None, "≥ 500k/s",
                token.rate >= 500_000, token.peak_mb),
            Row("the same", said, f"SHA-256 of the column ({digest.told('values')})", ratio, "≤ 3.5", ratio <= 3.5),
        ]  # fmt: skip
    return rows


def hashed(domain: str | None, value: str) -> Outcome:
    """The tokens of a column, or with no domain its plain digests; looked at, not kept."""
    with duckdb.connect() as connection:
        connection.execute("set enable_progress_bar = false")
        tokens.install(connection, bytes(32))
        connection.execute(f"create table people as select {value} as value from range({VALUES}) as numbers (i)")
        result = "sha256(value)" if domain is None else f"pseudonymise('{domain}', value)"
        clock = Stopwatch()
        row = connection.execute(f"select count(t), max(t) from (select {result} as t from people)").fetchone()
        clock.stop()
    return clock.outcome(row[0] if row else 0)
