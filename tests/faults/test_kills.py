"""A run that dies at any point, and folders that are lost or old: the next run lands everything, once."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults.naive import Died, NaiveLoader, die
from tests.faults.world import KILL_POINTS, World
from warehouse.core.paths import Home

SAMPLE = {
    "mid-extract",
    "before the manifest",
    "after COPY, before dlt's marker",
    "after completion, before return",
}
"""What `make test` kills; `make test-full` kills at every point, in both ways of reading."""

CASES = [
    pytest.param(point, by_cursor, marks=() if point in SAMPLE and by_cursor else pytest.mark.slow)
    for point in KILL_POINTS
    for by_cursor in (True, False)
]


def change_payments(world: World, *, deletions: bool) -> None:
    """New rows, changed rows and, where they can be seen, deleted ones."""
    prefix = world.add_payments(400)
    world.sql(
        "update transaction set amount = amount + 1, updated_at = clock_timestamp()"
        f" where transaction_id like '{prefix}%1'",
        "update product set unit_price = unit_price + 0.0001, updated_at = clock_timestamp()",
        "update customer set first_name = first_name || 'x', updated_at = clock_timestamp()",
    )
    if deletions:
        world.sql(f"delete from transaction where transaction_id like '{prefix}%7'")


@pytest.mark.parametrize(("point", "by_cursor"), CASES)
def test_a_killed_run_loses_and_doubles_nothing(world: World, point: str, by_cursor: bool) -> None:
    naive = world.naive()
    change_payments(world, deletions=not by_cursor)
    settings = world.by_cursor() if by_cursor else world.settings
    world.killed(point, "oltp", settings=settings)
    world.sql(
        "update transaction set quantity = quantity + 1, updated_at = clock_timestamp() where transaction_id = 'TXN002'"
    )
    world.ingest("oltp", settings=settings)
    world.assert_whole("oltp")
    assert world.ingest("oltp", settings=settings).landed_rows == 0

    break_naive(naive)


def break_naive(naive: NaiveLoader) -> None:
    """Kill the naive loader in the middle of its run and let it run again."""
    with pytest.raises(Died):
        naive.run(at=100, fault=die)
    naive.run()
    assert naive.differences >= 100


@pytest.mark.parametrize(
    ("source", "point"),
    [
        pytest.param("mongodb", "mid-extract", marks=pytest.mark.slow),
        pytest.param("mongodb", "after COPY, before dlt's marker", marks=pytest.mark.slow),
        pytest.param("mongodb", "after the commit", marks=pytest.mark.slow),
        ("stream", "after COPY, before dlt's marker"),
        pytest.param("stream", "before the manifest", marks=pytest.mark.slow),
        pytest.param("stream", "after normalize", marks=pytest.mark.slow),
    ],
)
def test_documents_and_events_survive_a_kill(world: World, source: str, point: str) -> None:
    if source == "mongodb":
        naive = world.naive_documents()
        world.documents.Transactions.insert_many(
            {"transaction_id": f"new{n}", "amount": n, "date": {"updated": datetime.now(UTC)}} for n in range(300)
        )
        world.documents.products.update_many({}, {"$set": {"category": point}})
        world.killed(point, "mongodb")
        world.ingest("mongodb")
        world.assert_whole("mongodb")
    else:
        naive = world.naive_events()
        world.produce(*(b'{"schema_version": 1, "event_type": "x", "amount": "1"}' for _ in range(300)), partition=1)
        world.killed(point, "stream")
        world.ingest("stream")
        world.assert_whole("stream")
    break_naive(naive)


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param("folder deleted", marks=pytest.mark.slow),
        pytest.param("older folder", marks=pytest.mark.slow),
        "older warehouse",
    ],
)
def test_lost_and_old_state(world: World, tmp_path: Path, loss: str) -> None:
    home = Home.of(world.settings)
    naive = world.naive()
    shutil.copytree(home.dlt, tmp_path / "dlt")
    shutil.copy(home.warehouse, tmp_path / "warehouse.duckdb")
    remembered = naive.cursor
    change_payments(world, deletions=False)
    world.ingest("oltp", settings=world.by_cursor())
    naive.run()
    if loss == "older warehouse":
        world.add_payments(50)
        world.killed("after normalize", "oltp", settings=world.by_cursor())
        home.warehouse.with_name(home.warehouse.name + ".wal").unlink(missing_ok=True)
        shutil.copy(tmp_path / "warehouse.duckdb", home.warehouse)
    else:
        shutil.rmtree(home.dlt)
        if loss == "older folder":
            shutil.copytree(tmp_path / "dlt", home.dlt)
    world.add_payments(100)
    world.ingest("oltp", settings=world.by_cursor())
    world.assert_whole("oltp")

    naive.cursor = remembered  # its state, restored from the same backup
    naive.run()
    assert naive.differences >= 400
