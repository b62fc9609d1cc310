"""Servers that go away, disks that fill up, runs that meet: one clear error, then everything lands, once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import psycopg
import pyarrow.parquet
import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from typer.testing import CliRunner

from ingestion.run import discard_pending
from tests.faults.conftest import brought_up
from tests.faults.naive import shows
from tests.faults.world import KILL_POINTS, World, at_point
from warehouse import servers
from warehouse.cli.app import app
from warehouse.core.errors import AlreadyRunning, LoadIncomplete, SourceUnavailable, WarehouseError
from warehouse.core.locks import writer_lock
from warehouse.core.paths import Home
from warehouse.doctor import doctor

MID_READ = ("ingestion.landing", "TableLanding.add", "before", 1)
"""Among the tables of PostgreSQL, where the first that has changed is read: one that has not is not treated."""


# -- servers ----------------------------------------------------------------------------------------------------


def while_reading(world: World, strike: Callable[[], None]) -> WarehouseError:
    """Run while `transaction` is locked, so that the reader waits in the middle of its snapshot; then strike."""
    with psycopg.connect(str(world.endpoints.postgres_admin_uri)) as blocker, ThreadPoolExecutor(1) as pool:
        blocker.execute("lock table transaction in access exclusive mode")
        run = pool.submit(world.ingest, "oltp")
        deadline = time.monotonic() + 60
        waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        while world.ask(waiting) == (0,):
            assert time.monotonic() < deadline, "the reader never came to the locked table"
            time.sleep(0.05)
        strike()
        error = run.exception(timeout=120)
    assert isinstance(error, WarehouseError), error
    assert error.what and error.kept and error.todo
    return error


def test_a_terminated_backend(world: World) -> None:
    naive = world.naive(goes_on=True)
    world.add_payments(300)
    while_reading(
        world,
        lambda: world.sql("select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'"),
    )
    world.ingest("oltp")
    world.assert_whole("oltp")

    everybody = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
    naive.run(at=60, fault=lambda: world.sql(f"{everybody} and backend_type = 'client backend'"))
    naive.run()
    shows("PostgreSQL ends the connection", naive, at_least=100)


@pytest.mark.slow
def test_a_restarted_postgres(landed: World, world: World) -> None:
    naive = world.naive(goes_on=True)
    world.add_payments(300)

    def restart() -> None:
        process = next(item for item in servers.status(landed.settings) if item.name == "postgres")
        assert process.pid is not None
        os.kill(process.pid, 2)  # fast shutdown: every connection is ended
        deadline = time.monotonic() + 60
        while next(item for item in servers.status(landed.settings) if item.name == "postgres").running:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    with pytest.raises(psycopg.Error):  # the blocker's own connection is ended too
        while_reading(world, restart)
    servers.up(landed.settings)
    world.ingest("oltp")
    world.assert_whole("oltp")

    naive.run(at=60, fault=restart)
    servers.up(landed.settings)
    naive.run()
    shows("PostgreSQL restarts", naive, at_least=100)


@pytest.mark.parametrize("fault", [pytest.param(fault, marks=pytest.mark.slow) for fault in ("stepdown", "restart")])
def test_mongod_steps_down_or_restarts_mid_read(landed: World, world: World, fault: str) -> None:
    naive = world.naive_documents(**({"goes_on": True} if fault == "restart" else {}))
    start = datetime.now(UTC)
    world.documents.Transactions.insert_many(
        {"transaction_id": f"{fault}{n}", "amount": n, "date": {"updated": start + timedelta(milliseconds=n)}}
        for n in range(600)
    )

    def strike() -> None:
        if fault == "stepdown":
            world.documents.client.admin.command("replSetStepDown", 2, force=True)
            return
        process = next(item for item in servers.status(landed.settings) if item.name == "mongodb")
        assert process.pid is not None
        os.kill(process.pid, 9)
        while next(item for item in servers.status(landed.settings) if item.name == "mongodb").running:
            time.sleep(0.1)

    failure = None
    try:
        with at_point(("ingestion.landing", "TableLanding.add", "before", 1), strike):
            world.ingest("mongodb")
    except WarehouseError as error:
        failure = error
    servers.up(landed.settings)
    if fault == "restart":
        assert isinstance(failure, SourceUnavailable)
        assert failure.what and failure.kept and failure.todo
    wait_for_primary(world)
    world.ingest("mongodb")
    world.assert_whole("mongodb")

    def save_cursor() -> None:
        strike()
        client: MongoClient[dict[str, int]] = MongoClient(str(world.endpoints.mongodb_admin_uri), retryWrites=False)
        client["naive"]["state"].insert_one({"at": 300})

    if fault == "restart":
        naive.run(at=60, fault=strike)
    else:
        with pytest.raises(PyMongoError):  # what reads goes on from a secondary; what writes does not
            naive.run(at=300, fault=save_cursor)
    servers.up(landed.settings)
    wait_for_primary(world)
    naive.run()
    shows("mongod steps down" if fault == "stepdown" else "mongod restarts", naive, at_least=100)


def wait_for_primary(world: World) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if world.documents.client.admin.command("hello")["isWritablePrimary"]:
                return
        except PyMongoError:
            pass
        assert time.monotonic() < deadline, "mongod did not become primary again"
        time.sleep(0.1)


# -- the disk ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(landed: World, tmp_path: Path) -> Iterator[World]:
    """A home on a file system of its own that the test can fill up."""
    mount = tmp_path / "small"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=192m", "tmpfs", str(mount)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs needs root: the full disk is not simulated here")
    try:
        yield brought_up(landed, mount / "home")
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def fill_up(world: World) -> None:
    """Take every byte that is left."""
    ballast = world.settings.warehouse_home.parent / "ballast"
    block = bytes(64 * 1024)
    with ballast.open("ab", buffering=0) as file:
        try:
            while file.write(block):
                pass
        except OSError:
            pass


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("before the first row", id="extract", marks=pytest.mark.slow),
        pytest.param("after normalize", id="load"),
        pytest.param("between one table's rows and the next", id="merge", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk(small_disk: World, point: str) -> None:
    world = small_disk
    naive = world.naive(goes_on=True)
    world.add_payments(4_000)
    with at_point(KILL_POINTS[point], lambda: fill_up(world)), pytest.raises(WarehouseError) as caught:
        world.ingest("oltp")
    assert "disk is full" in caught.value.what
    assert caught.value.kept and caught.value.todo
    ballast = world.settings.warehouse_home.parent / "ballast"
    ballast.unlink()
    world.ingest("oltp")
    world.assert_whole("oltp")

    def write_a_page() -> None:
        fill_up(world)
        ballast.with_name("page").write_bytes(bytes(64 * 1024))

    naive.run(at=60, fault=write_a_page)
    ballast.unlink()
    naive.run()
    shows("full disk", naive, at_least=1_000)


# -- runs that meet ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_warehouse_that_another_process_holds(world: World) -> None:
    naive = world.naive(goes_on=True)
    world.add_payments(50)
    code = (
        "import sys, time\n"
        "from warehouse.core.settings import load_settings\n"
        "from warehouse.core.database import open_warehouse\n"
        "with open_warehouse(load_settings(warehouse_home=sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    key = world.settings.dbt_env_secret_warehouse_key
    assert key is not None
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(world.settings.warehouse_home)],
        stdout=subprocess.PIPE,
        env={**os.environ, "DBT_ENV_SECRET_WAREHOUSE_KEY": key.get_secret_value()},
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunning, match="in use by another process") as caught:
            world.ingest("oltp")
        assert caught.value.kept and caught.value.todo
        naive.run(at=0, fault=lambda: duckdb.connect(str(Home.of(world.settings).warehouse)))
    finally:
        other.kill()
        other.wait()
    world.ingest("oltp")
    world.assert_whole("oltp")
    naive.run()
    shows("warehouse locked", naive, at_least=50)


def test_two_runs_at_once(world: World) -> None:
    """The second is refused while the first is in the middle, and neither doubles a row."""
    naive = world.naive()
    world.add_payments(50)
    inside, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        inside.set()
        assert go_on.wait(60)

    def run() -> None:
        with writer_lock(world.settings, "ingest"):
            world.ingest("oltp")

    with at_point(MID_READ, pause), ThreadPoolExecutor(1) as pool:
        first = pool.submit(run)
        assert inside.wait(60)
        try:
            with pytest.raises(AlreadyRunning, match="ingest, process"):
                run()
        finally:
            go_on.set()
        first.result(timeout=60)
    world.assert_whole("oltp")

    naive.run(at=25, fault=naive.run)  # the second starts and ends while the first is half-way
    shows("two runs at once", naive, at_least=25)


# -- a package that cannot be loaded ----------------------------------------------------------------------------


def test_a_poison_package_is_visible_and_can_be_given_up(world: World) -> None:
    naive = world.naive(goes_on=True)
    world.add_payments(60)
    world.killed("after normalize", "oltp")
    lake = Home.of(world.settings).lake / "oltp" / "transaction"
    poisoned = max(lake.iterdir())
    for file in poisoned.glob("*.parquet"):
        file.write_bytes(b"not parquet")

    with pytest.raises(LoadIncomplete, match=r"oltp: .*could not be loaded") as caught:
        world.ingest("oltp")
    assert "--discard-pending" in caught.value.todo
    findings = doctor(world.settings, server_statuses=lambda _: [])
    naive.run(at=30, fault=lambda: pyarrow.parquet.read_table(next(poisoned.glob("*.parquet"))))
    assert any("not loaded" in item.what and "--discard-pending" in item.todo for item in findings)

    assert discard_pending(world.settings)["oltp"] >= 1
    assert not poisoned.exists()
    assert discard_pending(world.settings) == {}
    world.ingest("oltp")
    world.assert_whole("oltp")
    naive.run()
    shows("package that cannot be loaded", naive, at_least=30)


def test_the_commands(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ingest --reconcile` exits with 5 on a difference and 0 without; `--discard-pending` lands what was given up."""
    key = world.settings.dbt_env_secret_warehouse_key
    assert key is not None
    monkeypatch.setenv("DBT_ENV_SECRET_WAREHOUSE_KEY", key.get_secret_value())
    monkeypatch.setenv("WAREHOUSE_HOME", str(world.settings.warehouse_home))
    monkeypatch.setenv("POSTGRES_URI", str(world.endpoints.postgres_uri))
    monkeypatch.setenv("MONGODB_URI", str(world.endpoints.mongodb_uri))
    monkeypatch.setenv("KAFKA_BOOTSTRAP", str(world.endpoints.kafka_bootstrap))
    from warehouse.core.settings import get_settings

    get_settings.cache_clear()
    try:
        command = CliRunner()
        world.add_payments(7)
        found = command.invoke(app, ["ingest", "oltp", "--reconcile"])
        assert found.exit_code == 5, found.output
        world.killed("after normalize", "oltp")
        landed_now = command.invoke(app, ["ingest", "oltp", "--discard-pending"])
        assert landed_now.exit_code == 0, landed_now.output
        again = command.invoke(app, ["ingest", "--reconcile", "--json"])
        assert again.exit_code == 0, again.output
        assert '"differences": 0' in again.output
        both = command.invoke(app, ["ingest", "--reconcile", "--full"])
        assert both.exit_code == 2
    finally:
        get_settings.cache_clear()
