"""A new key for pseudonyms, without a broken join: `warehouse privacy rotate-token-key`.

Every token of the version before is wrapped under the new key, wherever it lies and cannot be made again: lake, raw
tables, quarantine, vault, dbt's snapshots (a state that only looks new because of its tokens would be a new version).
No value is needed, so card numbers and undeclared keys, which are kept nowhere, go on joining too. Then the models, the
published copy and the role exports are made anew. The key becomes current last: killed anywhere, the rotation is taken
up by running it again, and until then nothing else that writes runs.

What was joined is counted before and after: for each two places that hold tokens, the pairs of rows that share one.
The receipt holds both counts and no token.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from ingestion.compaction import settle_all
from ingestion.lake import Lake
from ingestion.rekey import Rekeyed, occurrences_sql, rekey
from ingestion.schema import all_tables
from warehouse.classify import classify_compiled
from warehouse.core.database import open_warehouse
from warehouse.core.errors import ConfigurationError, LoadIncomplete
from warehouse.core.keys import PENDING, TOKEN_KEY, TOKEN_SHAPE, begin_rotation, end_rotation, file_key
from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import CATALOG, Settings
from warehouse.dbt import run_dbt
from warehouse.exports import export_configured
from warehouse.privacy import tokens, vault
from warehouse.publish import publish

_SNAPSHOTS = "snapshots"
"""The schema of dbt's snapshots: what was can be seen nowhere else, so no build makes it anew."""


@dataclass(frozen=True)
class Receipt:
    """What a rotation did, as evidence: counts and names, no token and no key."""

    key: str
    started_at: str
    finished_at: str
    tokens: int
    """Distinct tokens before; as many are there after."""
    joins: int
    """Pairs of places that share tokens."""
    matched_before: int
    matched_after: int
    broken: int
    """Pairs of places whose matches are not as many as before."""
    rewritten: Rekeyed
    vault_rows: int
    snapshot_rows: int
    rebuilt: bool
    """Whether models, published copy and exports were made anew (they are not where nothing was built before)."""
    path: Path

    def to_dict(self) -> dict[str, Any]:
        """For `--json` and the file."""
        facts = {name: value for name, value in vars(self).items() if name not in {"rewritten", "path"}}
        return facts | {"rewritten": vars(self.rewritten)}


@dataclass(frozen=True)
class Joins:
    """How what holds tokens hangs together."""

    tokens: int
    matched: dict[str, int]
    """`place = place` → pairs of rows with one token."""


def rotate_token_key(settings: Settings, progress: Progress = silent) -> Receipt:
    """Move every pseudonym to a new key. The caller holds the writer's lock, with `rotates`.

    Raises:
        ConfigurationError: the raw tables are Snowflake's, or a key is missing.
        LoadIncomplete: a sealed file is damaged, or a join is not what it was; the old key is then still there.
    """
    if settings.dbt_target != "duckdb":
        raise ConfigurationError(
            "tokens can be moved to a new key where DuckDB holds the raw tables only",
            todo="rotate on the DuckDB target and land into Snowflake anew",
        )
    old = _versions(settings)
    finished = _state(settings, len(old))
    if not finished.exists():  # or else it was killed while it made the models anew
        _move(settings, old, progress)
        finished = _state(settings, len(old) + 1)
    facts = json.loads(finished.read_text(encoding="utf-8"))
    Home.of(settings).build_state.unlink(missing_ok=True)
    rebuilt = _rebuild(settings, progress)
    before, after = Joins(**facts["before"]), Joins(**facts["after"])
    receipt = Receipt(
        key=facts["key"],
        started_at=facts["started_at"],
        finished_at=_now(),
        tokens=after.tokens,
        joins=len(after.matched),
        matched_before=sum(before.matched.values()),
        matched_after=sum(after.matched.values()),
        broken=_broken(before, after),
        rewritten=Rekeyed(**facts["rewritten"]),
        vault_rows=facts["vault_rows"],
        snapshot_rows=facts["snapshot_rows"],
        rebuilt=rebuilt,
        path=Home.of(settings).receipts / f"{facts['key']}.json",
    )
    _write(receipt.path, receipt.to_dict())
    finished.unlink()
    return receipt


def _move(settings: Settings, old: tuple[bytes, ...], progress: Progress) -> None:
    """Everything landed from the keys `old` to one more, which is current when this returns."""
    version = len(old) + 1
    name, state = f"{TOKEN_KEY}_v{version}", _state(settings, version)
    new = (*old, base64.b64decode(begin_rotation(settings, name)))
    with open_warehouse(settings, memory_limit=settings.memory_limit) as connection:
        vault.attach_vault(connection, settings)
        lake = Lake(settings)
        if state.exists():
            facts = json.loads(state.read_text(encoding="utf-8"))
        else:
            settle_all(connection, settings, lake, progress)
            progress("counting what is joined")
            facts = {"key": name, "started_at": _now(), "before": vars(count_joins(connection, lake))}
            _write(state, facts)
        tokens.install_rekeyed(connection, new)
        rewritten = rekey(connection, lake, version, progress)
        progress("vault")
        vault_rows = _rekey_vault(connection, version)
        snapshot_rows = _rekey_snapshots(connection, version)
        progress("counting what is joined")
        after = count_joins(connection, lake)
        _demand_none_left(connection, version - 1)
    before = Joins(**facts["before"])
    if (broken := _broken(before, after)) or before.tokens != after.tokens:
        raise LoadIncomplete(
            f"{broken} joins are not what they were, {after.tokens} tokens stand for {before.tokens}",
            kept="both keys and everything under one of them; nothing else runs until this is mended",
            todo="restore the last backup of WAREHOUSE_HOME, keys included",
        )
    moved = {"rewritten": vars(rewritten), "vault_rows": vault_rows, "snapshot_rows": snapshot_rows}
    _write(state, facts | {"after": vars(after)} | moved)
    end_rotation(settings, name)


def _broken(before: Joins, after: Joins) -> int:
    return sum(before.matched.get(pair) != after.matched.get(pair) for pair in before.matched | after.matched)


def _state(settings: Settings, version: int) -> Path:
    """What a rotation to a version has to remember while it goes on; gone when its receipt is there."""
    return Home.of(settings).receipts / f"{TOKEN_KEY}_v{version}{PENDING}.json"


def count_joins(connection: duckdb.DuckDBPyConnection, lake: Lake) -> Joins:
    """Count the pairs of rows that share a token, for each two columns of raw tables, lake, vault and snapshots."""
    occurrences = " union all ".join(
        [
            occurrences_sql(connection, lake, all_tables(), TOKEN_SHAPE),
            *(
                f"select 'vault.{table}.{column}', unnest(regexp_extract_all(\"{column}\", '{TOKEN_SHAPE}')) "
                f'from {vault.ALIAS}.main."{table}"'
                for table, column in _vault_columns(connection)
            ),
            *(
                f"select '{_SNAPSHOTS}.{table}.{column}', "
                f"unnest(regexp_extract_all(\"{column}\"::varchar, '{TOKEN_SHAPE}')) "
                f'from {CATALOG}.{_SNAPSHOTS}."{table}"'
                for table, column, _ in _snapshot_columns(connection)
            ),
        ]
    )
    connection.execute(f"""
        create or replace temp table occurrence as
        select place, token, count(*) as times from ({occurrences}) group by place, token
    """)
    matched = connection.execute("""
        select a.place || ' = ' || b.place, sum(a.times * b.times)::bigint
        from occurrence as a
        inner join occurrence as b on a.token = b.token and a.place <= b.place
        group by a.place, b.place
    """).fetchall()
    distinct = connection.execute("select count(distinct token) from occurrence").fetchone()
    return Joins(int(distinct[0]) if distinct else 0, dict(matched))


def _versions(settings: Settings) -> tuple[bytes, ...]:
    """The keys of all versions that are current, whether or not a rotation goes on."""
    folder = Home.of(settings).keys
    found: list[bytes] = []
    while (folder / f"{TOKEN_KEY}_v{len(found) + 1}.key").exists() or not found:
        found.append(base64.b64decode(file_key(settings, f"{TOKEN_KEY}_v{len(found) + 1}")))
    return tuple(found)


def _vault_columns(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    return connection.execute(
        "select table_name, column_name from duckdb_columns() where database_name = ? and schema_name = 'main' "
        "and data_type = 'VARCHAR' and contains(column_name, 'token') order by all",
        [vault.ALIAS],
    ).fetchall()


def _rekey_vault(connection: duckdb.DuckDBPyConnection, version: int) -> int:
    columns = [(f'{vault.ALIAS}.main."{table}"', column, "varchar") for table, column in _vault_columns(connection)]
    return _rekey_columns(connection, columns, version)


def _rekey_columns(connection: duckdb.DuckDBPyConnection, columns: list[tuple[str, str, str]], version: int) -> int:
    """Tokens of the version before, in columns (relation, name, type), as those of this one; all of them or none."""
    connection.execute("begin")
    changed = 0
    for relation, column, data_type in columns:
        row = connection.execute(
            f'update {relation} set "{column}" = rekeyed("{column}"::varchar)::{data_type} '
            f"where contains(\"{column}\"::varchar, 'v{version - 1}:')"
        ).fetchone()
        changed += int(row[0]) if row else 0
    connection.execute("commit")
    return changed


def _snapshot_columns(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str]]:
    """Table, column and type of whatever may hold text."""
    return connection.execute(
        "select table_name, column_name, data_type from duckdb_columns() where database_name = ? and schema_name = ? "
        "and (contains(data_type, 'VARCHAR') or contains(data_type, 'JSON')) order by all",
        [CATALOG, _SNAPSHOTS],
    ).fetchall()


def _rekey_snapshots(connection: duckdb.DuckDBPyConnection, version: int) -> int:
    columns = [
        (f'{CATALOG}.{_SNAPSHOTS}."{table}"', column, data_type)
        for table, column, data_type in _snapshot_columns(connection)
    ]
    return _rekey_columns(connection, columns, version)


def _demand_none_left(connection: duckdb.DuckDBPyConnection, version: int) -> None:
    row = connection.execute(f"select count(*) from occurrence where token like 'v{version}:%'").fetchone()
    if row and row[0]:
        raise LoadIncomplete(
            f"{row[0]} tokens are still of version {version}",
            kept="both keys; nothing else runs until this is mended",
            todo="run this again; if it repeats, restore the last backup of WAREHOUSE_HOME, keys included",
        )


def _rebuild(settings: Settings, progress: Progress) -> bool:
    """Everything that was made from raw tokens, made anew."""
    if not Home.of(settings).published.exists():
        return False
    run_dbt(settings, ["build", "--full-refresh"], progress=progress)
    classify_compiled(settings).demand()
    publish(settings, progress)
    export_configured(settings, progress)
    return True


def _write(path: Path, facts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(path.name + ".part")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(facts, file, indent=1)
        file.flush()
        os.fsync(descriptor)
    new.replace(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
