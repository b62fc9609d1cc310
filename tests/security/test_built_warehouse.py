"""Erasure and legal holds in the built warehouse of a company."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import RecordFigure
from tests.integration.landed_home import query
from tests.security.test_erasure import Landed, found
from tests.security.test_restriction import TOTALS, everything, facts, values
from warehouse.core.database import open_published
from warehouse.core.locks import writer_lock
from warehouse.core.paths import Home
from warehouse.core.settings import CATALOG, Settings
from warehouse.dbt import run_dbt
from warehouse.erasure import erase
from warehouse.erasure import reports as reports_module
from warehouse.exports import open_export
from warehouse.privacy.holds import add_hold
from warehouse.privacy.needles import subject_needles
from warehouse.publish import publish


@pytest.fixture
def settings(planted_company: Settings, tmp_path: Path) -> Settings:
    """A copy of the company's home, without its servers."""
    home, left = tmp_path / "home", shutil.ignore_patterns("servers", "spill")
    shutil.copytree(planted_company.warehouse_home, home, ignore=left, ignore_dangling_symlinks=True)
    return planted_company.model_copy(update={"warehouse_home": home})


def published_tables(settings: Settings) -> int:
    with open_published(settings, locked_down=False) as connection:
        row = connection.execute("select count(*) from duckdb_tables() where database_name = ?", [CATALOG]).fetchone()
    return row[0] if row else 0


def forget_compiled(manifest: Path) -> None:
    """As a refresh that brought nothing leaves it: dbt has compiled some models only."""
    content = json.loads(manifest.read_text(encoding="utf-8"))
    for node in content["nodes"].values():
        node.pop("compiled_code", None)
    manifest.write_text(json.dumps(content), encoding="utf-8")


def test_after_an_erasure_everything_reconciles(
    settings: Settings, record_figure: RecordFigure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The models of a refreshed company: every dbt test passes after an erasure, and again after a full rebuild."""

    def started(*_: object) -> None:
        raise AssertionError("the compiled SQL of the reports fits, and no dbt is needed")

    monkeypatch.setattr(reports_module, "run_dbt", started)
    forget_compiled(Home.of(settings).dbt_target / "manifest.json")
    published_before = Home.of(settings).published.stat().st_ino
    (subject,) = query(
        settings,
        "select customer_id from raw_oltp.transaction where customer_id like 'CUSTOMER001%' "
        "group by all order by count(*) desc, 1 limit 1",
    )[0]
    amounts = f"select currency_code, sum(amount), count(*) from {CATALOG}.public.fct_sales group by all order by all"
    landed = Landed(settings, subject_needles(settings, subject).needles, query(settings, amounts))
    receipt = erase(settings, subject, "DSR-1")
    record_figure(
        "erasure, 1,500 payments",
        f"{receipt.seconds} s, {receipt.residual} residual",
        "60 s at 1M payments, 0 residual bytes",
    )
    assert found(landed) == []
    assert Home.of(settings).published.stat().st_ino != published_before
    assert receipt.steps["published"]["tables"] < published_tables(settings), "only what changed is published again"
    assert query(settings, amounts) == landed.amounts
    (kept,) = query(settings, "select count(*) from public.fct_sales where customer_key = '-3'")[0]
    assert kept > 0
    reports = {
        name: query(settings, f"select * from public.{name} order by all")
        for (name,) in query(settings, "select table_name from duckdb_tables() where table_name like 'rpt_%'")
    }
    run_dbt(settings, ["test", "--exclude-resource-type", "unit_test"])
    run_dbt(settings, ["build", "--full-refresh", "--exclude-resource-type", "unit_test"])
    assert found(landed) == []
    assert query(settings, amounts) == landed.amounts
    for name in ("rpt_daily_overview", "rpt_merchant_overview", "rpt_payout_reconciliation"):
        assert query(settings, f"select * from public.{name} order by all") == reports[name], name


def test_under_a_hold_every_fact_stays_and_finds_its_members(settings: Settings) -> None:
    with writer_lock(settings, "publish"):
        publish(settings)
    with open_export(settings, "fraud_analyst") as connection:
        totals = connection.execute(TOTALS).fetchall()
        before = everything(connection)
        subject, key = connection.execute(
            "select customer_id, customer_key from public.dim_customer inner join public.fct_sales using (customer_key)"
            " where customer_id like 'CUSTOMER%' group by all order by count(*) desc, 1 limit 1"
        ).fetchall()[0]
    add_hold(settings, subject, "aml", "AML-1")
    with open_export(settings, "fraud_analyst") as connection:
        after = everything(connection)
        assert connection.execute(TOTALS).fetchall() == totals
        assert {subject, key} <= values(before)
        assert not {subject, key} & values(after)
        assert facts(after) == facts(before)
        for member in ("customer", "customer_version", "device", "payment_method"):
            dimension = "dim_customer_history" if member == "customer_version" else f"dim_{member}"
            for (table,) in connection.execute(
                "select distinct table_name from duckdb_columns() where column_name = $1 and table_name like 'fct_%'",
                [f"{member}_key"],
            ).fetchall():
                lost = f"select count(*) from public.{table} anti join public.{dimension} using ({member}_key)"
                assert connection.execute(lost).fetchone() == (0,), (table, member)
