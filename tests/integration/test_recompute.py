"""The built reports equal what `tests/recompute` works out from the sources, row by row, to the last digit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import duckdb
import psycopg
import pytest

from ingestion.run import ingest
from tests.conftest import MakeSettings
from tests.recompute import daily_overview, merchant_balance_daily, payout_reconciliation, scheme_monitoring
from tests.recompute.comparison import differences
from tests.recompute.sources import Row, Sources, read, read_merchants
from warehouse import servers, simulation
from warehouse.core.database import open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.settings import Settings
from warehouse.dbt import run_dbt


@dataclass(frozen=True)
class Report:
    """A built table, and the function that works it out again."""

    table: str
    grain: Sequence[str]
    recompute: Callable[[Sources], list[Row]]
    measure: str
    """A column that a test spoils."""


REPORTS = [
    Report("rpt_daily_overview", daily_overview.GRAIN, daily_overview.recompute, "captured_amount"),
    Report(
        "fct_merchant_balance_daily",
        merchant_balance_daily.GRAIN,
        merchant_balance_daily.recompute,
        "closing_amount",
    ),
    Report(
        "rpt_payout_reconciliation",
        payout_reconciliation.GRAIN,
        payout_reconciliation.recompute,
        "movements_amount",
    ),
    Report("rpt_scheme_monitoring", scheme_monitoring.GRAIN, scheme_monitoring.recompute, "sales_amount_reporting"),
]


EACH_REPORT = [pytest.param(report, id=report.table) for report in REPORTS]


@dataclass(frozen=True)
class Compared:
    """A built warehouse, and the sources it was built from."""

    settings: Settings
    sources: Sources


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Iterator[Compared]:
    """A company that landed, moved on by a week, in which a busy shop moved to the other side of the date line too."""
    home = tmp_path_factory.mktemp("recompute")
    settings = make_settings(home, dataset="company", sim_transactions=3_000, sim_days=20)
    try:
        endpoints = servers.up(settings)
        simulation.fill(settings, endpoints)
        before = read_merchants(str(endpoints.postgres_uri))
        ingest(settings, endpoints, run_id="first")
        simulation.advance(settings, endpoints, days=7)
        _move_the_busiest_shop(endpoints)
        ingest(settings, endpoints, run_id="second")
        run_dbt(settings, ["seed"])
        run_dbt(settings, ["run", "--select", *(f"+{report.table}" for report in REPORTS)])
        yield Compared(settings, _read(endpoints, before))
    except servers.ServerMissing as error:
        pytest.skip(error.what)
    finally:
        servers.down(settings)


@pytest.fixture(scope="module")
def small(reference: Settings) -> Compared:
    """The reference rows, refreshed."""
    endpoints = servers.resolve(reference)
    return Compared(reference, _read(endpoints))


def _read(endpoints: Endpoints, *merchant_readings: list[Row]) -> Sources:
    return read(
        str(endpoints.postgres_uri), str(endpoints.mongodb_uri), str(endpoints.kafka_bootstrap), merchant_readings
    )


def _move_the_busiest_shop(endpoints: Endpoints) -> None:
    with psycopg.connect(str(endpoints.postgres_admin_uri)) as connection:
        connection.execute(
            """
            update merchant
            set
                time_zone = 'Pacific/Kiritimati',
                updated_at = (select max(created_at) - interval '4 days' from transaction)
            where merchant_id = (select merchant_id from transaction group by 1 order by count(*) desc, 1 limit 1)
            """
        )


def built(settings: Settings, table: str) -> list[Row]:
    """The rows of a table of the marts."""
    with open_warehouse(settings, read_only=True) as connection:
        return _rows(connection, table)


def _rows(connection: duckdb.DuckDBPyConnection, table: str) -> list[Row]:
    found = connection.execute(f"select * from public.{table}")
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


@pytest.mark.parametrize("report", EACH_REPORT)
@pytest.mark.parametrize("home", ["moved", "small"])
def test_the_report_equals_the_recomputation(report: Report, home: str, request: pytest.FixtureRequest) -> None:
    compared: Compared = request.getfixturevalue(home)
    expected = report.recompute(compared.sources)
    assert expected
    found = differences(expected, built(compared.settings, report.table), report.grain)
    assert not found, f"{len(found)} differences: {found[:20]}"


@pytest.mark.parametrize("report", EACH_REPORT)
def test_a_planted_difference_is_seen(report: Report, moved: Compared) -> None:
    """One value off by its smallest step, one row too few, one row twice: each is told."""
    expected = report.recompute(moved.sources)
    first = f"where rowid = (select min(rowid) from public.{report.table} where {report.measure} is not null)"
    faults = {
        f"update public.{report.table} set {report.measure} = {report.measure} + 0.0001 {first}": report.measure,
        f"delete from public.{report.table} {first}": "missing",
        f"insert into public.{report.table} select * from public.{report.table} {first}": "doubled",
    }
    with open_warehouse(moved.settings) as connection:
        for statement, told in faults.items():
            connection.execute("begin")
            connection.execute(statement)
            found = differences(expected, _rows(connection, report.table), report.grain)
            connection.execute("rollback")
            assert len(found) == 1, statement
            assert told in found[0]
