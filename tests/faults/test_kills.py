"""A run that dies at any point, and folders that are lost or old: the next run lands everything, once."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults.naive import Died, NaiveLoader, die, shows
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
    naive = {"after": world.naive(), "before": world.naive(cursor_first=True)}
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


def break_naive(naive: dict[str, NaiveLoader]) -> None:
    """Kill the naive loaders in the middle of their run and let them run again."""
    for kept, loader in naive.items():
        with pytest.raises(Died):
            loader.run(at=110, fault=die)
        loader.run()
        if kept == "after":
            shows("SIGKILL, cursor kept after the rows", loader, at_least=100)
        else:
            shows("SIGKILL, cursor kept before the rows", loader, at_least=40)


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
        naive = {"after": world.naive_documents(), "before": world.naive_documents(cursor_first=True)}
        world.documents.Transactions.insert_many(
            {"transaction_id": f"new{n}", "amount": n, "date": {"updated": datetime.now(UTC)}} for n in range(300)
        )
        world.documents.products.update_many({}, {"$set": {"category": point}})
        world.killed(point, "mongodb")
        world.ingest("mongodb")
        world.assert_whole("mongodb")
    else:
        naive = {"after": world.naive_events(), "before": world.naive_events(cursor_first=True)}
        world.produce(*(b'{"schema_version": 1, "event_type": "x", "amount": "1"}' for _ in range(300)), partition=1)
        world.killed(point, "stream")
        world.ingest("stream")
        world.assert_whole("stream")
    break_naive(naive)


LOSSES = {
    "folder deleted": "dlt's working directory deleted",
    "older folder": "dlt's working directory restored from an old copy",
    "older warehouse": "warehouse restored from an old copy",
}


@pytest.mark.parametrize(
    "loss", [pytest.param(loss, marks=() if loss == "older warehouse" else pytest.mark.slow) for loss in LOSSES]
)
def test_lost_and_old_state(world: World, tmp_path: Path, loss: str) -> None:
    home = Home.of(world.settings)
    naive = world.naive()
    naive.save(tmp_path / "naive")
    shutil.copytree(home.dlt, tmp_path / "dlt")
    shutil.copy(home.warehouse, tmp_path / "warehouse.duckdb")
    change_payments(world, deletions=False)
    world.ingest("oltp", settings=world.by_cursor())
    naive.run()
    naive.save(tmp_path / "naive now")
    if loss == "older warehouse":
        world.add_payments(50)
        world.killed("after normalize", "oltp", settings=world.by_cursor())
        home.warehouse.with_name(home.warehouse.name + ".wal").unlink(missing_ok=True)
        shutil.copy(tmp_path / "warehouse.duckdb", home.warehouse)
        shutil.copy(tmp_path / "naive" / "rows", tmp_path / "naive now")
    else:
        shutil.rmtree(home.dlt)
        (tmp_path / "naive now" / "cursor").unlink()
        if loss == "older folder":
            shutil.copytree(tmp_path / "dlt", home.dlt)
            shutil.copy(tmp_path / "naive" / "cursor", tmp_path / "naive now")
    world.add_payments(100)
    world.ingest("oltp", settings=world.by_cursor())
    world.assert_whole("oltp")

    naive.open(tmp_path / "naive now")
    naive.run()
    shows(LOSSES[loss], naive, at_least=400)
