"""Housekeeping of the lake: fewer loads, or fewer versions, and the same rows, wherever it is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ingestion import compaction
from ingestion.compaction import compact, retain
from ingestion.lake import Lake
from ingestion.replay import replay
from ingestion.run import ingest
from ingestion.schema import tables
from ingestion.versions import loads_sql
from tests.integration.landed_home import NOWHERE, change_products, copy_home, query
from warehouse.cli import app as commands
from warehouse.core.database import open_warehouse
from warehouse.core.errors import LoadIncomplete
from warehouse.core.settings import Settings

VERSIONS = "select * exclude (_dlt_load_id) from raw_oltp.product_history order by all"
CURRENT = "select * exclude (_dlt_load_id) from raw_oltp.product order by all"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, landed_reference: Settings) -> Settings:
    """A home whose products landed in five loads, to be copied."""
    settings = copy_home(landed_reference, tmp_path_factory.mktemp("filled") / "home")
    for day in range(4):
        change_products(settings, day)
        ingest(settings, NOWHERE, run_id=f"day{day}", sources=("files",))
    return settings


@pytest.fixture
def settings(tmp_path: Path, filled: Settings) -> Settings:
    return copy_home(filled, tmp_path / "home")


def loads(settings: Settings) -> list[str]:
    return [load.load_id for load in Lake(settings).sealed_loads("oltp", "product")]


def folders(settings: Settings) -> list[str]:
    return sorted(path.name for path in (settings.warehouse_home / "lake" / "oltp" / "product").iterdir())


def test_many_loads_become_one_with_the_same_rows(settings: Settings) -> None:
    before = query(settings, VERSIONS)
    first = loads(settings)
    (plan,) = compact(settings, min_loads=3, dry_run=True)
    assert loads(settings) == first
    (done,) = compact(settings, min_loads=3)
    assert done == plan
    assert (done.table, done.loads, done.loads_after) == ("raw_oltp.product", 5, 1)
    assert loads(settings) == folders(settings) == [f"{first[-1]}.c001"]
    (load,) = Lake(settings).sealed_loads("oltp", "product")
    load.verify()
    assert load.rows == len(before)
    replay(settings)
    assert query(settings, VERSIONS) == before
    assert compact(settings, min_loads=3) == []


@pytest.mark.parametrize("work", ["compact", "retain"])
def test_what_was_erased_is_in_no_load_that_is_written_anew(settings: Settings, work: str) -> None:
    (erased,) = query(settings, "select min(product_id) from raw_oltp.product")[0]
    mine = f"product_id = '{erased}'"
    before = query(settings, f"select count(*) from raw_oltp.product_history where not {mine}")
    with open_warehouse(settings) as connection:
        connection.execute(
            "insert into raw_ops.erasure_ledger (source, table_name, row_key, erased_at)"
            f" values ('oltp', 'product', '{erased}', now())"
        )
    (done,) = compact(settings, min_loads=3) if work == "compact" else retain(settings, days=365)
    assert done.removed > 0
    with open_warehouse(settings) as connection:
        table = tables("oltp")["product"]
        relation = loads_sql(connection, table, Lake(settings).sealed_loads("oltp", "product"))
        held = connection.execute(f"select count(*) filter ({mine}), count(*) from ({relation})").fetchone()
    assert held == (0, before[0][0])


def test_loads_go_on_after_a_compaction_and_it_can_be_done_again(settings: Settings) -> None:
    compact(settings, min_loads=3)
    change_products(settings, 8)
    ingest(settings, NOWHERE, run_id="later", sources=("files",))
    before, current = query(settings, VERSIONS), query(settings, CURRENT)
    first = loads(settings)
    assert len(first) == 2
    replay(settings, since=first[1])
    assert (query(settings, VERSIONS), query(settings, CURRENT)) == (before, current)
    compact(settings, min_loads=2)
    assert loads(settings) == [f"{first[1]}.c001"]
    replay(settings)
    assert (query(settings, VERSIONS), query(settings, CURRENT)) == (before, current)


def test_a_table_with_few_loads_is_left_alone(settings: Settings) -> None:
    first = folders(settings)
    assert compact(settings, min_loads=6) == []
    assert folders(settings) == first


def test_a_damaged_load_stops_it(settings: Settings) -> None:
    path = Lake(settings).sealed_loads("oltp", "product")[1].files[0].path
    assert isinstance(path, Path)
    path.write_bytes(path.read_bytes()[:-1])
    first = loads(settings)
    with pytest.raises(LoadIncomplete, match="is not what was sealed"):
        compact(settings, min_loads=2)
    assert loads(settings) == first


def test_rows_that_were_not_written_stop_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    first = folders(settings)
    write = compaction.write_part
    monkeypatch.setattr(
        compaction,
        "write_part",
        lambda connection, sql, path: write(connection, f"select * from ({sql}) limit 3", path),
    )
    with pytest.raises(LoadIncomplete, match="does not hold the rows of the old ones"):
        compact(settings, min_loads=2)
    assert folders(settings) == first


# -- retention ----------------------------------------------------------------------------------------------------


@pytest.fixture
def aged(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As seen 100 days later: everything that has landed is older than 30 days."""
    from datetime import timedelta

    now = compaction.datetime

    class Later(now):
        @classmethod
        def now(cls, zone: Any = None) -> Any:
            return now.now(zone) + timedelta(days=100)

    monkeypatch.setattr(compaction, "datetime", Later)
    return settings


def test_old_versions_go_and_the_last_one_of_each_key_stays(aged: Settings) -> None:
    current, keys = query(aged, CURRENT), query(aged, "select count(distinct product_id) from raw_oltp.product_history")
    before = len(query(aged, VERSIONS))
    plan = retain(aged, days=30, dry_run=True)
    assert len(query(aged, VERSIONS)) == before
    done = retain(aged, days=30)
    assert done == plan
    product = next(item for item in done if item.table == "raw_oltp.product")
    assert product.removed == product.history_removed == before - keys[0][0] > 0
    after = query(aged, VERSIONS)
    assert after == current
    replay(aged)
    assert (query(aged, CURRENT), query(aged, VERSIONS)) == (current, after)
    assert retain(aged, days=30) == []


def test_young_versions_stay(settings: Settings) -> None:
    before = query(settings, VERSIONS)
    assert retain(settings, days=1) == []
    assert query(settings, VERSIONS) == before


# -- killed half-way ----------------------------------------------------------------------------------------------

STEPS: dict[str, tuple[str, bool]] = {
    "before the file": ("write_part", False),
    "after the file": ("write_part", True),
    "before the mark": ("Lake.mark_loaded", False),
    "before the seal": ("Lake.seal", False),
    "after the seal": ("Lake.seal", True),
    "while old loads go": ("Lake.discard", True),
    "after the old loads went": ("replace_loads", True),
}


def _die(settings: Settings, step: str, work: Callable[..., Any], options: dict[str, int], days_later: int) -> None:
    from datetime import timedelta

    now = compaction.datetime

    class Later(now):
        @classmethod
        def now(cls, zone: Any = None) -> Any:
            return now.now(zone) + timedelta(days=days_later)

    setattr(compaction, "datetime", Later)  # noqa: B010  # mypy knows it as a class
    name, after = STEPS[step]
    owner: Any = compaction
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original = getattr(owner, last)

    def killed(*args: Any) -> None:
        if after:
            original(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, last, killed)
    work(settings, **options)


def die(settings: Settings, step: str, work: Callable[..., Any], days_later: int = 0, **options: int) -> None:
    process = get_context("forkserver").Process(target=_die, args=(settings, step, work, options, days_later))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_compaction_loses_and_doubles_nothing(settings: Settings, step: str) -> None:
    before, current = query(settings, VERSIONS), query(settings, CURRENT)
    die(settings, step, compact, min_loads=2)
    sealed = Lake(settings).sealed_loads("oltp", "product")
    assert sum(load.rows for load in sealed) == len(before)
    replay(settings)
    assert (query(settings, VERSIONS), query(settings, CURRENT)) == (before, current)
    change_products(settings, 9)
    ingest(settings, NOWHERE, run_id="later", sources=("files",))
    before, current = query(settings, VERSIONS), query(settings, CURRENT)
    compact(settings, min_loads=2)
    assert len(folders(settings)) == len(loads(settings)) == 1
    replay(settings)
    assert (query(settings, VERSIONS), query(settings, CURRENT)) == (before, current)


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_retention_is_finished_by_the_next(aged: Settings, step: str) -> None:
    current = query(aged, CURRENT)
    die(aged, step, retain, 100, days=30)
    assert query(aged, CURRENT) == current
    retain(aged, days=30)
    assert query(aged, VERSIONS) == current
    replay(aged)
    assert (query(aged, CURRENT), query(aged, VERSIONS)) == (current, current)


def test_the_commands(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_settings", lambda: settings)
    run = CliRunner()
    shown = run.invoke(commands.app, ["lake", "compact", "--min-loads", "3", "--dry-run"])
    assert shown.exit_code == 0 and "raw_oltp.product" in shown.stdout
    assert run.invoke(commands.app, ["lake", "retain", "--days", "30", "--json"]).stdout.strip() == "[]"
    replayed = run.invoke(commands.app, ["replay", "--json"])
    assert replayed.exit_code == 0 and '"raw_oltp.product"' in replayed.stdout
    assert run.invoke(commands.app, ["replay", "--from", "none"]).exit_code == 2
    landed = run.invoke(commands.app, ["ingest", "files", "--json"])
    assert landed.exit_code == 0 and '"files"' in landed.stdout
