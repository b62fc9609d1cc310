"""Bad input: one clear error that names what failed, what was kept and what to do; nothing lost or half-published."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from ingestion.run import IngestReport, ingest
from tests.conftest import MakeSettings
from warehouse import servers, simulation
from warehouse.cli.app import app
from warehouse.core.database import blank_connection, open_published, open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import (
    AlreadyRunning,
    ConfigurationError,
    LoadIncomplete,
    SchemaDrift,
    SourceUnavailable,
    WarehouseError,
)
from warehouse.core.locks import writer_lock
from warehouse.core.settings import Settings
from warehouse.refresh import refresh

Landed = tuple[Settings, Endpoints]


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Iterator[Landed]:
    """The reference data set, landed once, on servers of its own that tests may spoil and mend."""
    settings = make_settings(tmp_path_factory.mktemp("spoilt"), dataset="reference")
    try:
        endpoints = servers.up(settings)
        simulation.fill(settings, endpoints)
        ingest(settings, endpoints, run_id="first")
        yield settings, endpoints
    finally:
        servers.down(settings)


def again(landed: Landed, **changes: object) -> IngestReport:
    settings, endpoints = landed
    return ingest(settings, endpoints, run_id="again", sources=("oltp",), **changes)


def admin(landed: Landed, *statements: str) -> None:
    with psycopg.connect(str(landed[1].postgres_admin_uri), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def count(settings: Settings, table: str, where: str = "true") -> int:
    with open_warehouse(settings, read_only=True) as connection:
        found = connection.execute(f"select count(*) from {table} where {where}").fetchone()
        assert found is not None
        return int(found[0])


def assert_three_answers(error: WarehouseError) -> None:
    assert error.what and error.kept and error.todo


def test_a_server_that_is_down(landed: Landed) -> None:
    settings, endpoints = landed
    gone = Endpoints("postgresql://reader:secret-word@127.0.0.1:1/oltp_strip_project", endpoints.mongodb_uri, None)
    with pytest.raises(SourceUnavailable, match="PostgreSQL does not answer") as caught:
        ingest(settings, gone, run_id="down", sources=("oltp", "mongodb"))
    assert_three_answers(caught.value)
    assert "secret-word" not in str(caught.value)
    assert "landed in this run: mongodb" in caught.value.kept
    assert count(settings, "raw_oltp.transaction") > 0


def test_a_wrong_password(landed: Landed) -> None:
    settings, endpoints = landed
    uri = str(endpoints.postgres_uri)
    user, _, rest = uri.partition("@")
    wrong = Endpoints(f"{user.rsplit(':', 1)[0]}:not-the-password@{rest}", None, None)
    with pytest.raises(SourceUnavailable, match="refused the credentials") as caught:
        ingest(settings, wrong, run_id="wrong", sources=("oltp",))
    assert_three_answers(caught.value)
    assert "not-the-password" not in str(caught.value)


def test_a_missing_table(landed: Landed) -> None:
    admin(landed, "alter table device rename to device_old")
    try:
        with pytest.raises(SchemaDrift, match="table device is missing") as caught:
            again(landed)
        assert_three_answers(caught.value)
        assert count(landed[0], "raw_oltp.device", "_deleted_at is null") > 0
    finally:
        admin(landed, "alter table device_old rename to device")


def test_a_renamed_column(landed: Landed) -> None:
    before = count(landed[0], "raw_oltp.customer")
    admin(landed, "alter table customer rename column kyc_status to kyc_state")
    try:
        with pytest.raises(SchemaDrift, match=r"customer\.kyc_status is missing") as caught:
            again(landed)
        assert_three_answers(caught.value)
        assert count(landed[0], "raw_oltp.customer") == before
    finally:
        admin(landed, "alter table customer rename column kyc_state to kyc_status")
    assert again(landed).landed_rows == 0


def test_a_changed_type(landed: Landed) -> None:
    admin(landed, "alter table transaction alter column quantity type numeric(12, 3)")
    try:
        with pytest.raises(SchemaDrift, match=r"transaction\.quantity is now numeric"):
            again(landed)
    finally:
        admin(landed, "alter table transaction alter column quantity type integer")


def test_a_new_column_does_not_land_but_is_told(landed: Landed) -> None:
    admin(landed, "alter table product add column colour text default 'red'")
    try:
        alerts = again(landed).sources[0].alerts
        assert alerts == ["product.colour is new at the source and does not land"]
    finally:
        admin(landed, "alter table product drop column colour")


def test_an_empty_table_is_not_taken_for_a_deletion_of_everything(landed: Landed) -> None:
    settings, _ = landed
    before = count(settings, "raw_oltp.transaction", "_deleted_at is null")
    assert before > 100
    admin(landed, "create table kept as table transaction", "delete from transaction")
    try:
        with pytest.raises(LoadIncomplete, match="are gone at the source") as caught:
            again(landed)
        assert_three_answers(caught.value)
        assert count(settings, "raw_oltp.transaction", "_deleted_at is null") == before
        assert again(landed, accept_deletes=True).landed_rows == before
        assert count(settings, "raw_oltp.transaction", "_deleted_at is null") == 0
    finally:
        admin(landed, "insert into transaction table kept", "drop table kept")
    again(landed)
    assert count(settings, "raw_oltp.transaction", "_deleted_at is null") == before


def test_a_deleted_row_is_closed_and_comes_back(landed: Landed) -> None:
    settings, _ = landed
    admin(landed, "create table kept as select * from status where status_code = 'blocked'")
    admin(
        landed,
        "delete from transaction where status_code = 'blocked'",
        "delete from status where status_code = 'blocked'",
    )
    again(landed)
    assert count(settings, "raw_oltp.status", "status_code = 'blocked' and _deleted_at is not null") == 1
    admin(landed, "insert into status table kept", "drop table kept")
    again(landed)
    assert count(settings, "raw_oltp.status", "status_code = 'blocked' and _deleted_at is null") == 1


def test_an_update_behind_the_cursor_and_one_with_an_equal_cursor_are_landed(landed: Landed) -> None:
    settings, _ = landed
    admin(
        landed, "update product set product_name = 'Behind', updated_at = '2001-01-01' where product_id = 'PRODUCT005'"
    )
    again(landed)
    admin(landed, "update product set product_name = 'Equal' where product_id = 'PRODUCT005'")
    assert again(landed).landed_rows == 1
    assert count(settings, "raw_oltp.product", "product_name = 'Equal'") == 1
    assert count(settings, "raw_oltp.product_history", "product_id = 'PRODUCT005'") >= 3


def test_a_second_run_at_the_same_time(landed: Landed) -> None:
    settings, _ = landed
    code = (
        "import sys, time\n"
        "from warehouse.core.settings import load_settings\n"
        "from warehouse.core.locks import writer_lock\n"
        "with writer_lock(load_settings(warehouse_home=sys.argv[1]), 'refresh'):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(settings.warehouse_home)], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunning, match=f"refresh, process {other.pid}") as caught:
            refresh(settings)
        assert_three_answers(caught.value)
    finally:
        other.kill()
        other.wait()
    with writer_lock(settings, "test"):
        pass  # the lock of a killed process is free


def test_an_unknown_target_and_an_unusable_setting() -> None:
    result = CliRunner().invoke(app, ["refresh", "--target", "oracle"])
    assert result.exit_code == ConfigurationError.exit_code
    assert "there is no target" in result.output
    from warehouse.core.settings import load_settings

    with pytest.raises(ConfigurationError, match="SIM_DAYS") as caught:
        load_settings(sim_days="many-secret-days")
    assert "many-secret-days" not in str(caught.value)


def test_a_full_disk_leaves_what_was_published_readable(reference: Settings, tmp_path: Path) -> None:
    """The home on a file system of a few megabytes: landing stops with a clear error, readers go on."""
    mount = tmp_path / "small"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(mount)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs needs root: the full disk is not simulated here")
    try:
        settings = reference.model_copy(update={"warehouse_home": mount})
        endpoints = servers.resolve(reference)
        from warehouse.core.keys import create_missing_keys

        create_missing_keys(settings)
        blank_connection(settings, postgres=True).close()  # puts the extensions there, which need most of the room
        free = os.statvfs(mount).f_bavail * os.statvfs(mount).f_frsize
        (mount / "ballast").write_bytes(bytes(free - 100_000))
        with pytest.raises(WarehouseError) as caught:
            ingest(settings, endpoints, run_id="full")
        assert "disk is full" in caught.value.what
        assert_three_answers(caught.value)
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)
    with open_published(reference) as connection:
        assert connection.execute("select count(*) > 0 from fct_sales").fetchone() == (True,)


def test_a_failing_build_keeps_the_published_copy(reference: Settings) -> None:
    """A planted bad row stops the run before publishing; readers keep the old copy; the run report says why."""
    from warehouse.core.errors import QualityFailure
    from warehouse.core.paths import Home
    from warehouse.report import last_report

    published = Home.of(reference).published
    before = published.stat().st_mtime_ns
    with open_warehouse(reference) as connection:
        connection.execute("update raw_oltp.transaction set amount = -5 where transaction_id = 'TXN002'")
    Home.of(reference).build_state.unlink()  # nothing has landed: without this nothing would be built
    try:
        with pytest.raises(QualityFailure) as caught:
            refresh(reference)
        assert_three_answers(caught.value)
        assert published.stat().st_mtime_ns == before
        report = last_report(reference)
        assert report is not None and report["status"] == "failed" and report["error"]["what"]
    finally:
        with open_warehouse(reference) as connection:
            connection.execute("delete from raw_oltp.transaction where transaction_id = 'TXN002'")
        refresh(reference)
    assert published.stat().st_mtime_ns > before


def test_a_wrong_key_opens_nothing(landed: Landed, make_settings: MakeSettings, tmp_path: Path) -> None:
    stranger = make_settings(tmp_path).model_copy(update={"warehouse_home": landed[0].warehouse_home})
    with (
        pytest.raises(ConfigurationError, match="does not open with this key") as caught,
        open_warehouse(stranger, read_only=True),
    ):
        pass
    assert str(stranger.dbt_env_secret_warehouse_key.get_secret_value()) not in str(caught.value)
