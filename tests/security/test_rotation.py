"""New keys: nothing that was joined is apart, nothing opens with the old key, and a kill anywhere is made good."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydantic import SecretStr

from ingestion import rekey as rekey_module
from ingestion.lake import Lake
from ingestion.replay import replay
from ingestion.run import ingest
from ingestion.schema import all_tables
from tests.conftest import RecordFigure
from tests.integration.landed_home import NOWHERE, copy_home, drop_reference, query
from tests.security.kills import killed
from warehouse import file_keys, rotation
from warehouse.core.database import open_warehouse
from warehouse.core.errors import ConfigurationError, LoadIncomplete
from warehouse.core.keys import WAREHOUSE_KEY_VARIABLE, file_key, warehouse_key
from warehouse.core.locks import writer_lock
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.file_keys import rotate_file_key
from warehouse.privacy import tokens
from warehouse.privacy.vault import attach_vault, entries_of, open_vault
from warehouse.rotation import Receipt, count_joins, rotate_token_key

KEYS = (b"a" * 32, b"b" * 32, b"c" * 32)
JOIN = "select count(*) from raw_oltp.customer join raw_oltp.customer_history using (email_token)"
CUSTOMERS = "select * exclude (_dlt_load_id) from raw_oltp.customer order by all"


SNAPSHOT = """
    create schema snapshots;
    create table snapshots.snap as
    select
        customer_id, email_token, [email_token, 'new'] as tags,
        json_object('colour', 'red', '_unknown_' || email_token, [email_token]) as attributes
    from raw_oltp.customer
"""
"""What dbt keeps of earlier states: no build makes it anew, and an undeclared key may have put tokens there."""


@pytest.fixture(scope="module")
def pattern(landed_reference: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The reference data, landed, and a snapshot; not to be changed."""
    settings = copy_home(landed_reference, tmp_path_factory.mktemp("pattern") / "home")
    with open_warehouse(settings) as connection:
        connection.execute(SNAPSHOT)
    return settings


@pytest.fixture
def landed(pattern: Settings, tmp_path: Path) -> Settings:
    """A copy of it."""
    return copy_home(pattern, tmp_path / "home")


def land_again(settings: Settings) -> dict[str, int]:
    """Land the same rows from other files, in another order: a file lands once by its content. Table → new rows."""
    drop_reference(settings)
    for path in (path for path in Home.of(settings).drops.rglob("*") if path.is_file()):
        lines = path.read_text(encoding="utf-8").splitlines()
        head = lines[:1] if path.suffix == ".csv" else []
        path.write_text("\n".join([*head, *reversed(lines[len(head) :])]) + "\n", encoding="utf-8")
    report = ingest(settings, NOWHERE, run_id="test", sources=("files",))
    found = {name: counts for item in report.sources for name, counts in item.tables.items()}
    if any(counts.source_rows == 0 for counts in found.values()):
        raise AssertionError("a file was not read")
    return {name: counts.landed_rows for name, counts in found.items()}


def rotate(settings: Settings) -> Receipt:
    with writer_lock(settings, "rotate", rotates=True):
        return rotate_token_key(settings)


def old_tokens(settings: Settings, version: int) -> int:
    """Tokens of a version in every column of every table, and in every byte of the lake's rows."""
    found = 0
    with open_warehouse(settings, read_only=True) as connection:
        attach_vault(connection, settings)
        count_joins(connection, Lake(settings))
        row = connection.execute(f"select count(*) from occurrence where token like 'v{version}:%'").fetchone()
        found += row[0] if row else 0
        tables = connection.execute(
            "select database_name, schema_name, table_name from duckdb_tables() "
            "where database_name in ('olap_strip_project', 'vault')"
        ).fetchall()
        for place in tables:
            name = ".".join(f'"{part}"' for part in place)
            row = connection.execute(
                f"select count(*) from {name} as t where regexp_matches(t::varchar, 'v{version}:[0-9a-f]{{64}}')"
            ).fetchone()
            found += row[0] if row else 0
    return found


@pytest.mark.parametrize("value", ["ana@example.org", "", "Zoë\x00 ", "4111 1111 1111 1111"])
@pytest.mark.parametrize("domain", ["email", "pan", "name", "text"])
def test_a_wrapped_token_is_the_token_of_the_new_version(domain: str, value: str) -> None:
    connection = duckdb.connect()
    for versions in (KEYS[:2], KEYS):
        tokens.install(connection, versions)
        fresh = connection.execute("select pseudonymise($d, $v)", {"d": domain, "v": value}).fetchone()
        assert fresh == (tokens.pseudonym(versions, domain, value),)
        tokens.install_rekeyed(connection, versions)
        old = tokens.pseudonym(versions[:-1], domain, value)
        text = json.dumps({"a": old, "b": [old, f"{old}0", "v1:x"], "_unknown": None})
        moved = connection.execute("select rekeyed($t), rekeyed(rekeyed($t)), rekeyed(null)", {"t": text}).fetchone()
        assert moved
        assert json.loads(moved[0]) == {"a": fresh[0], "b": [fresh[0], f"{old}0", "v1:x"], "_unknown": None}
        assert moved[0] == moved[1]
        assert moved[2] is None


def test_no_join_breaks_and_nothing_lands_twice(landed: Settings, record_figure: RecordFigure) -> None:
    before, opened = query(landed, JOIN), values(landed)
    receipt = rotate(landed)
    assert receipt.broken == 0
    assert values(landed) == opened, "what is sealed opens under its new token"
    assert receipt.matched_before == receipt.matched_after > 0
    assert receipt.joins > 20
    assert old_tokens(landed, 1) == 0
    assert query(landed, JOIN) == before
    assert receipt.snapshot_rows == 3 * len(query(landed, CUSTOMERS))
    assert query(
        landed,
        "select count(*) from snapshots.snap as s join raw_oltp.customer as c on s.email_token = c.email_token "
        "and s.tags = [c.email_token, 'new'] "
        "and s.attributes = json_object('colour', 'red', '_unknown_' || c.email_token, [c.email_token])",
    ) == [(len(query(landed, CUSTOMERS)),)]
    landed_again = land_again(landed)
    assert len(landed_again) > 10
    assert sum(landed_again.values()) == 0, "the same rows have the same tokens and hashes under the new key"
    raw = query(landed, CUSTOMERS)
    with writer_lock(landed, "replay"):
        replay(landed)
    assert query(landed, CUSTOMERS) == raw
    record_figure("key rotation", f"{receipt.broken} of {receipt.joins} joins broken", "0 broken")


def values(settings: Settings) -> list[str]:
    return sorted(entry.value for entry in vault_rows(settings))


def test_who_was_erased_stays_erased(landed: Settings) -> None:
    token = "select pseudonymise('erased subject', 'CUST0001')"
    with open_warehouse(landed) as connection:
        tokens.install(connection, tokens.token_key(landed))
        connection.execute(f"insert into raw_ops.erasure_ledger (subject_token, erased_at) values (({token}), now())")
        connection.execute(f"insert into raw_ops.retention_held values ('oltp', 'x', ({token}), ({token}), null)")
    rotate(landed)
    with open_warehouse(landed) as connection:
        tokens.install(connection, tokens.token_key(landed))
        assert connection.execute(f"select subject_token = ({token}) from raw_ops.erasure_ledger").fetchall() == [
            (True,)
        ]
        held = f"select party_token = ({token}), payment_token = ({token}) from raw_ops.retention_held"
        assert connection.execute(held).fetchall() == [(True, True)], "nor is anybody's hold forgotten"


def test_each_further_rotation_wraps_the_one_before(landed: Settings) -> None:
    raw = len(query(landed, CUSTOMERS))
    for version in (2, 3, 4):
        receipt = rotate(landed)
        assert receipt.key == f"token_v{version}"
        assert receipt.broken == 0
        assert [old_tokens(landed, older) for older in range(1, version)] == [0] * (version - 1)
    assert sum(land_again(landed).values()) == 0
    with writer_lock(landed, "replay"):
        replay(landed)
    assert len(query(landed, CUSTOMERS)) == raw


def test_the_receipt_holds_no_token_and_no_key(landed: Settings) -> None:
    text = rotate(landed).path.read_text()
    keys = [path.read_text().strip() for path in Home.of(landed).keys.glob("*.key")]
    assert "v1:" not in text
    assert "v2:" not in text
    assert not any(key in text for key in keys)


KILLS = (
    (rotation, "begin_rotation", 1),
    (rotation, "settle_all", 1),
    (rotation, "count_joins", 1),
    (rekey_module, "_replace", 1),
    (rekey_module, "write_part", 2),
    (rekey_module, "_replace", 4),
    (rekey_module, "_update", 3),
    (rotation, "rekey", 1),
    (rotation, "_rekey_vault", 1),
    (rotation, "_rekey_snapshots", 1),
    (rotation, "count_joins", 1),
    (rotation, "end_rotation", 1),
    (rotation, "_rebuild", 1),
)
"""Each kill meets the rotation that was killed before: module, function, within which call of it."""


def test_killed_anywhere_it_is_taken_up(landed: Settings) -> None:
    for module, name, call in KILLS:
        with killed(module, name, call=call):
            rotate(landed)
        if name not in {"end_rotation", "_rebuild"}:
            with pytest.raises(ConfigurationError, match="was interrupted"):
                tokens.token_key(landed)
            with pytest.raises(ConfigurationError, match="was interrupted"), writer_lock(landed, "ingest"):
                pass
    receipt = rotate(landed)
    assert receipt.key == "token_v2"
    assert receipt.broken == 0
    assert receipt.matched_before == receipt.matched_after > 0
    assert old_tokens(landed, 1) == 0
    assert sum(land_again(landed).values()) == 0


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Within it one token of the vault does not move along: a join breaks."""
    real = rotation._rekey_vault

    def forgets(connection: duckdb.DuckDBPyConnection, version: int) -> int:
        changed = real(connection, version)
        connection.execute(
            "update vault.main.sealed_entry set token = 'v2:' || repeat('0', 64) "
            "where token = (select min(email_token) from raw_oltp.customer)"
        )
        return changed

    with monkeypatch.context() as patch:
        patch.setattr(rotation, "_rekey_vault", forgets)
        yield patch


BROKEN = "joins are not what they were"


def test_a_broken_join_is_not_hidden(landed: Settings, forgetful: pytest.MonkeyPatch) -> None:
    """The proof can fail."""
    with pytest.raises(LoadIncomplete, match=BROKEN):
        rotate(landed)


def test_nor_is_one_that_broke_before_a_kill(landed: Settings, forgetful: pytest.MonkeyPatch) -> None:
    """What was joined is what was counted before anything moved, not what a second attempt finds."""
    with killed(rotation, "_rekey_snapshots"):
        rotate(landed)
    forgetful.undo()
    with pytest.raises(LoadIncomplete, match=BROKEN):
        rotate(landed)


# --- what lies on disk -----------------------------------------------------------------------------------------------


def renew(settings: Settings, name: str, env_file: Path | None = None) -> None:
    with writer_lock(settings, "rotate", rotates=True):
        rotate_file_key(settings, name, env_file=env_file or Home.of(settings).root / ".env")


def vault_rows(settings: Settings) -> list[Any]:
    """Every value, opened: a key that was not wrapped anew, or a value bound to what has changed, raises."""
    with open_vault(settings) as connection:
        owners = [owner for (owner,) in connection.execute("select owner from vault.main.subject_key").fetchall()]
        found = entries_of(connection, settings, owners)
    assert found
    return found


def test_the_vault_under_a_new_key(landed: Settings) -> None:
    rows, old = vault_rows(landed), file_key(landed, "vault")
    assert rows
    renew(landed, "vault")
    assert vault_rows(landed) == rows
    assert file_key(landed, "vault") != old
    assert not file_keys._opens(landed, Home.of(landed).vault, old)
    assert [path.name for path in Home.of(landed).vault.parent.iterdir()] == ["vault.duckdb"]


@pytest.mark.parametrize(("name", "call"), [("begin_rotation", 1), ("_sync", 1), ("_sync", 2)])
def test_a_killed_vault_rotation_is_taken_up(landed: Settings, name: str, call: int) -> None:
    rows = vault_rows(landed)
    with killed(file_keys, name, call=call):
        renew(landed, "vault")
    renew(landed, "vault")
    assert vault_rows(landed) == rows
    assert [path.name for path in Home.of(landed).vault.parent.iterdir()] == ["vault.duckdb"]


def test_the_lake_under_a_new_key(landed: Settings) -> None:
    raw, old = query(landed, CUSTOMERS), file_key(landed, "lake")
    for _ in range(2):
        renew(landed, "lake")
        with writer_lock(landed, "replay"):
            replay(landed)
        assert query(landed, CUSTOMERS) == raw
    lake = Lake(landed)
    sealed = [file.path for table in all_tables() for load in lake.sealed_loads(table.source, table.name)
              for file in load.files]  # fmt: skip
    assert sealed
    assert sorted(map(str, Home.of(landed).lake.rglob("*.parquet"))) == sorted(map(str, sealed))
    connection = duckdb.connect()
    connection.execute(f"pragma add_parquet_key('lake', '{old}')")
    for path in sealed:
        with pytest.raises(duckdb.Error):
            connection.execute(
                f"select * from read_parquet('{path}', encryption_config = {{footer_key: 'lake'}})"
            ).fetchall()


@pytest.mark.parametrize(("name", "call"), [("begin_rotation", 1), ("_rewrite", 1), ("_rewrite", 7)])
def test_a_killed_lake_rotation_is_taken_up(landed: Settings, name: str, call: int) -> None:
    raw = query(landed, CUSTOMERS)
    with killed(file_keys, name, call=call):
        renew(landed, "lake")
    with pytest.raises(ConfigurationError, match="was interrupted"), writer_lock(landed, "replay"):
        pass
    renew(landed, "lake")
    with writer_lock(landed, "replay"):
        replay(landed)
    assert query(landed, CUSTOMERS) == raw


@pytest.mark.parametrize("name", [None, "begin_rotation", "rotated_warehouse_key"])
def test_the_writers_database_under_a_new_key(landed: Settings, tmp_path: Path, name: str | None) -> None:
    raw, old = query(landed, CUSTOMERS), warehouse_key(landed)
    env_file = tmp_path / ".env"
    env_file.write_text(f"# mine\n{WAREHOUSE_KEY_VARIABLE}={old}\nSIM_DAYS=30\n")
    if name:
        with killed(file_keys, name):
            renew(landed, "warehouse", env_file)
        if name == "rotated_warehouse_key":  # the next process reads what is in .env now
            value = env_file.read_text().splitlines()[1].partition("=")[2]
            landed = landed.model_copy(update={"dbt_env_secret_warehouse_key": SecretStr(value)})
    renew(landed, "warehouse", env_file)
    lines = env_file.read_text().splitlines()
    assert (lines[0], lines[2]) == ("# mine", "SIM_DAYS=30")
    new = lines[1].partition("=")[2]
    assert new != old
    assert len(base64.b64decode(new)) == 32
    moved = landed.model_copy(update={"dbt_env_secret_warehouse_key": SecretStr(new)})
    assert query(moved, CUSTOMERS) == raw
    with (
        pytest.raises(ConfigurationError, match="does not open with this key"),
        open_warehouse(landed.model_copy(update={"dbt_env_secret_warehouse_key": SecretStr(old)})),
    ):
        pass


def test_a_key_that_is_not_in_the_env_file_is_refused_before_anything_moves(landed: Settings) -> None:
    with pytest.raises(ConfigurationError, match="does not come from"):
        renew(landed, "warehouse")
    assert query(landed, CUSTOMERS)


def test_role_exports_and_their_keys_go(landed: Settings) -> None:
    home = Home.of(landed)
    export = home.role_export("analyst")
    export.parent.mkdir(parents=True)
    for path in (export, export.with_suffix(".stamp"), home.keys / "role_analyst.key"):
        path.write_text("x")
    renew(landed, "roles")
    assert not list(export.parent.iterdir())
    assert not (home.keys / "role_analyst.key").exists()


def test_no_other_key_can_be_rotated(landed: Settings) -> None:
    with pytest.raises(ConfigurationError, match="no key"):
        renew(landed, "token_v1")
