"""Replay: the raw tables from the lake alone, equal to what they were, and what was erased stays out."""

from __future__ import annotations

import os
import shutil
import signal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from ingestion import replay as replaying
from ingestion.lake import SEAL, Lake
from ingestion.load import read_state
from ingestion.raw import raw_table_names
from ingestion.replay import SUFFIX, replay
from ingestion.run import ingest
from ingestion.schema import all_tables
from tests.integration.landed_home import NOWHERE, change_products, copy_home, drop_reference, query
from warehouse.core.database import open_warehouse
from warehouse.core.errors import ConfigurationError, LoadIncomplete
from warehouse.core.paths import Home
from warehouse.core.settings import Settings

COLUMNS = "select table_schema, table_name, column_name, data_type from information_schema.columns order by all"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, landed_reference: Settings) -> Settings:
    """A home into which the reference data landed, and three times changed products, to be copied."""
    settings = copy_home(landed_reference, tmp_path_factory.mktemp("filled") / "home")
    for day in range(3):
        change_products(settings, day)
        ingest(settings, NOWHERE, run_id=f"day{day}", sources=("files",))
    return settings


@pytest.fixture
def settings(tmp_path: Path, filled: Settings) -> Settings:
    return copy_home(filled, tmp_path / "home")


def contents(settings: Settings) -> dict[str, list[Any]]:
    """Every raw table, sorted, dlt's column aside; and what replay must not touch."""
    with open_warehouse(settings, read_only=True) as connection:
        found = {
            f"{table.raw_schema}.{name}": connection.execute(
                f'select * exclude (_dlt_load_id) from {table.raw_schema}."{name}" order by all'
            ).fetchall()
            for table in all_tables()
            for name in raw_table_names(table)
        }
        for name in ("quarantine", "load_manifest", "landed_files"):
            found[name] = connection.execute(f"select * from raw_ops.{name} order by all").fetchall()
        return found


def erase(settings: Settings, **entry: str) -> None:
    names = ", ".join(entry)
    with open_warehouse(settings) as connection:
        connection.execute(
            f"insert into raw_ops.erasure_ledger ({names}, erased_at) values ({', '.join('?' * len(entry))}, now())",
            list(entry.values()),
        )


def test_a_replay_gives_back_what_was_there(settings: Settings) -> None:
    before = contents(settings)
    assert len(before["raw_oltp.product_history"]) > len(before["raw_oltp.product"]) > 0
    types = query(
        settings, "select table_schema, table_name, column_name, data_type from information_schema.columns order by all"
    )
    report = replay(settings)
    assert contents(settings) == before
    assert (
        query(
            settings,
            "select table_schema, table_name, column_name, data_type from information_schema.columns order by all",
        )
        == types
    )
    product = next(item for item in report.tables if item.name == "raw_oltp.product")
    assert product.loads == 4
    assert product.versions == len(before["raw_oltp.product_history"])


def test_a_lost_warehouse_comes_back_whole(settings: Settings) -> None:
    before = contents(settings)
    Home.of(settings).warehouse.unlink()
    shutil.rmtree(Home.of(settings).dlt)
    replay(settings)
    after = contents(settings)
    assert {name: rows for name, rows in after.items() if name.startswith("raw_")} == {
        name: rows for name, rows in before.items() if name.startswith("raw_")
    }


def test_positions_stay_valid_and_landing_goes_on(settings: Settings) -> None:
    def position() -> dict[str, Any]:
        with open_warehouse(settings) as connection:
            return read_state(connection, settings, "oltp", channel="files")

    before = position()
    replay(settings)
    assert position() == before
    change_products(settings, 7)
    report = ingest(settings, NOWHERE, run_id="next", sources=("files",))
    assert 0 < report.landed_rows == report.sources[0].tables["oltp.product"].landed_rows
    assert query(settings, "select count(*) = count(distinct product_id) from raw_oltp.product") == [(True,)]
    expected = contents(settings)
    replay(settings)
    assert contents(settings) == expected


def test_spoilt_tables_are_mended_and_with_from_only_later_loads_are_read(settings: Settings) -> None:
    before = contents(settings)
    loads = [load.load_id for load in Lake(settings).sealed_loads("oltp", "product")]
    with open_warehouse(settings) as connection:
        connection.execute(f"delete from raw_oltp.product_history where _load_id >= '{loads[2]}'")
        connection.execute("update raw_oltp.product set product_name = 'spoilt' where _load_id = ?", [loads[3]])
    report = replay(settings, since=loads[2])
    assert contents(settings) == before
    assert next(item.loads for item in report.tables if item.name == "raw_oltp.product") == 2
    with pytest.raises(ConfigurationError, match="has no load"):
        replay(settings, since="20010101T000000000000Z")


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_lake_is_found_before_anything_is_swapped(settings: Settings, damage: str) -> None:
    before = contents(settings)
    path = Lake(settings).sealed_loads("oltp", "transaction")[0].files[0].path
    assert isinstance(path, Path)
    if damage == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with pytest.raises(LoadIncomplete, match=r"is missing|is not what was sealed"):
        replay(settings)
    assert contents(settings) == before


def test_the_wrong_lake_does_not_empty_the_warehouse(settings: Settings, tmp_path: Path) -> None:
    before = contents(settings)
    with pytest.raises(LoadIncomplete, match="are in no sealed load"):
        replay(settings.model_copy(update={"lake_uri": (tmp_path / "other").as_uri()}))
    assert contents(settings) == before


def test_a_load_that_never_reached_the_warehouse_is_not_replayed(settings: Settings) -> None:
    """Sealed, and then the run was killed: its rows are read again, and must not be there twice."""
    before = contents(settings)
    lake = Lake(settings)
    (load, *_) = lake.sealed_loads("oltp", "currency")
    folder = lake.load_folder("oltp", "currency", load.load_id)
    orphan = folder.parent / "29990101T000000000000Z"
    shutil.copytree(folder, orphan)  # a local lake
    (orphan / "_loaded").unlink()
    (folder / "_loaded").unlink()
    replay(settings)
    assert contents(settings) == before
    assert not (orphan / SEAL).exists()
    assert (folder / "_loaded").exists()


def test_who_was_erased_does_not_come_back(settings: Settings) -> None:
    before = contents(settings)
    (subject,) = query(settings, "select customer_id from raw_oltp.customer order by 1 limit 1")[0]
    (key,) = query(settings, "select product_id from raw_oltp.product order by 1 limit 1")[0]
    erase(settings, subject=subject)
    erase(settings, source="oltp", table_name="product", row_key=key)
    report = replay(settings)
    assert sum(item.erased for item in report.tables) > 2
    after = contents(settings)
    for name, gone in (
        ("raw_oltp.customer", subject),
        ("raw_oltp.payment_method", subject),
        ("raw_oltp.product_history", key),
    ):
        assert after[name] == [row for row in before[name] if gone not in row]
        assert len(after[name]) < len(before[name])
    assert len(after["raw_oltp.transaction"]) == len(before["raw_oltp.transaction"])  # amounts stay
    assert not any(subject in row for row in after["raw_oltp.transaction"])
    assert after["raw_oltp.merchant"] == before["raw_oltp.merchant"]
    # nor from the source
    home = Home.of(settings)
    with open_warehouse(settings) as connection:
        connection.execute("delete from raw_ops.landed_files")
    shutil.rmtree(home.drops)
    drop_reference(settings)
    ingested = ingest(settings, NOWHERE, run_id="again", sources=("files",))
    customers = ingested.sources[0].tables["oltp.customer"]
    assert (customers.landed_rows, customers.quarantined_rows) == (0, 0)
    assert query(settings, f"select count(*) from raw_oltp.customer_history where customer_id = '{subject}'") == [(0,)]
    assert query(settings, f"select count(*) from raw_oltp.product where product_id = '{key}'") == [(0,)]


STEPS = ("_build", "_check_nothing_vanishes", "_swap")


def _replay_and_die(settings: Settings, step: str, calls: int, after: bool) -> None:
    original = getattr(replaying, step)
    seen = 0

    def killed(*args: Any) -> Any:
        nonlocal seen
        seen += 1
        result = original(*args) if after or seen < calls else None
        if seen == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(replaying, step, killed)
    replay(settings)


@pytest.mark.parametrize(
    ("step", "calls", "after"),
    [
        ("_build", 3, False),
        ("_build", 3, True),
        ("_check_nothing_vanishes", 5, True),
        ("_swap", 1, False),
        ("_swap", 1, True),
    ],
)
def test_a_killed_replay_leaves_the_tables_and_is_taken_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, step: str, calls: int, after: bool
) -> None:
    before = contents(settings)
    process = get_context("forkserver").Process(target=_replay_and_die, args=(settings, step, calls, after))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert contents(settings) == before
    built: list[str] = []
    original = replaying._build

    def counted(connection: Any, table: Any, *rest: Any) -> int:
        built.append(table.name)
        return original(connection, table, *rest)

    monkeypatch.setattr(replaying, "_build", counted)
    replay(settings)
    assert contents(settings) == before
    swapped = step == "_swap" and after
    finished = {"_build": 2, "_check_nothing_vanishes": len(all_tables()), "_swap": len(all_tables())}[step]
    assert len(built) == len(all_tables()) - (0 if swapped else finished)
    assert query(settings, f"select * from duckdb_tables() where table_name like '%{SUFFIX}'") == []
