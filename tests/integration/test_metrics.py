"""Metrics: each equals a statement written by hand, however it is cut; what cannot be asked is refused with advice."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.conftest import MakeSettings
from warehouse.cli.app import app
from warehouse.core.errors import ConfigurationError
from warehouse.core.settings import Settings, get_settings
from warehouse.metrics import Metrics
from warehouse.query import QueryError, run_query

OVERVIEW, SALES, FRAUD = "rpt_daily_overview", "fct_sales", "fct_fraud"
DISPUTES, SCHEMES, LIFECYCLE = "rpt_dispute_activity", "rpt_scheme_monitoring", "fct_payment_lifecycle"
BY_HAND = {
    "payments": (SALES, "count(*)"),
    "attempts": (OVERVIEW, "sum(attempts)"),
    "blocked_payments": (OVERVIEW, "sum(blocked_transactions)"),
    "incomplete_payments": (OVERVIEW, "sum(incomplete_transactions)"),
    "authorized_payments": (OVERVIEW, "sum(authorized_transactions)"),
    "asked_payments": (OVERVIEW, "sum(transactions - blocked_transactions - incomplete_transactions)"),
    "asked_attempts": (OVERVIEW, "sum(attempts - blocked_transactions - incomplete_transactions)"),
    "refunded_payments": (OVERVIEW, "sum(refunded_transactions)"),
    "captured_payments": (OVERVIEW, "sum(captured_transactions)"),
    "unconverted_payments": (OVERVIEW, "sum(unconverted_transactions)"),
    "captured_volume": (SALES, "sum(gross_amount_reporting) filter (is_ever_captured)"),
    "fees": (SALES, "sum(fee_amount_reporting) filter (is_ever_captured)"),
    "refunds": (OVERVIEW, "sum(refunded_amount_reporting)"),
    "lost_disputes": (OVERVIEW, "sum(dispute_lost_amount_reporting)"),
    "net_volume": (
        OVERVIEW,
        "sum(captured_amount_reporting) - sum(refunded_amount_reporting) - sum(dispute_lost_amount_reporting)",
    ),
    "confirmed_fraud_payments": (FRAUD, "count(*) filter (is_confirmed_fraud)"),
    "gross_fraud_loss": (FRAUD, "sum(gross_loss_amount_reporting)"),
    "recovered_fraud_loss": (FRAUD, "sum(recovered_amount_reporting)"),
    "net_fraud_loss": (FRAUD, "sum(gross_loss_amount_reporting) - sum(recovered_amount_reporting)"),
    "labelled_blocks": (FRAUD, "count(*) filter (decision = 'block' and label in ('fraud', 'legitimate'))"),
    "false_blocks": (FRAUD, "count(*) filter (decision = 'block' and label = 'legitimate')"),
}
WITHOUT_CURRENCY = {
    "charges": (DISPUTES, "sum(charges)"),
    "opened_disputes": (DISPUTES, "sum(disputes_opened)"),
    "disputed_charges": (DISPUTES, "sum(disputes_on_charges)"),
    "cases": (SCHEMES, "sum(fraud_reports + disputes)"),
    "card_sales": (SCHEMES, "sum(sales)"),
    "chargebacks": (SCHEMES, "sum(disputes)"),
    "prior_card_sales": (SCHEMES, "sum(prior_month_sales)"),
    "settlement_seconds": (LIFECYCLE, "sum(epoch(available_at) - epoch(captured_at))::bigint"),
    "settled_payments": (LIFECYCLE, "count(*) filter (available_at is not null and captured_at is not null)"),
}
RATES = {
    "authorization_rate": ("authorized_payments", "asked_payments"),
    "authorization_rate_raw": ("authorized_payments", "asked_attempts"),
    "conversion_rate": ("authorized_payments", "payments"),
    "block_rate": ("blocked_payments", "payments"),
    "take_rate": ("fees", "captured_volume"),
    "false_block_share": ("false_blocks", "labelled_blocks"),
    "dispute_activity": ("opened_disputes", "charges"),
    "dispute_rate": ("disputed_charges", "charges"),
    "vamp_ratio": ("cases", "card_sales"),
    "ecm_ratio": ("chargebacks", "prior_card_sales"),
    "settlement_lag": ("settlement_seconds", "settled_payments"),
}
EVERY = BY_HAND | WITHOUT_CURRENCY
MONTH = {
    OVERVIEW: "date_trunc('month', business_date)",
    SALES: "date_trunc('month', business_date)",
    FRAUD: "date_trunc('month', event_at_utc)",
    DISPUTES: "date_trunc('month', first_of_week)",
    SCHEMES: "business_month",
    LIFECYCLE: "date_trunc('month', captured_at)",
}

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def metrics(company: Settings) -> Metrics:
    return Metrics(company)


@pytest.fixture(scope="module")
def ask(metrics: Metrics) -> Callable[..., Rows]:
    def run(*names: str, **how: Any) -> Rows:
        rows: Rows = metrics.run(metrics.sql(names, **how)).to_pylist()
        return rows

    return run


def test_every_metric_is_described_and_written_by_hand(metrics: Metrics) -> None:
    assert set(metrics.definitions) == EVERY.keys() | RATES.keys()
    assert all(definition.description for definition in metrics.definitions.values())


@pytest.mark.parametrize("name", BY_HAND)
def test_a_metric_equals_the_statement_written_by_hand(name: str, company: Settings, ask: Callable[..., Rows]) -> None:
    table, expression = BY_HAND[name]
    by_hand = run_query(
        company,
        f"select {MONTH[table]}::date as month, currency_code, {expression} as value "
        f"from {table} group by 1, 2 order by 1, 2",
    ).to_pylist()
    found = ask(name, by=["month", "currency_code"], order=["month", "currency_code"])
    assert by_hand
    assert [list(row.values()) for row in _dated(found)] == [list(row.values()) for row in by_hand]


@pytest.mark.parametrize("name", WITHOUT_CURRENCY)
def test_a_metric_of_no_currency_equals_the_statement_written_by_hand(
    name: str, company: Settings, ask: Callable[..., Rows]
) -> None:
    table, expression = WITHOUT_CURRENCY[name]
    by_hand = run_query(
        company, f"select {MONTH[table]}::date as month, {expression} as value from {table} group by 1 order by 1"
    ).to_pylist()
    assert by_hand
    assert [list(row.values()) for row in _dated(ask(name, by=["month"]))] == [list(row.values()) for row in by_hand]


@pytest.mark.parametrize("name", RATES)
def test_a_rate_brings_what_it_is_made_of(name: str, company: Settings, ask: Callable[..., Rows]) -> None:
    (row,) = ask(name)
    numerator, denominator = RATES[name]
    assert list(row) == [numerator, denominator, name]
    table, expression = EVERY[numerator]
    assert run_query(company, f"select {expression} as value from {table}").to_pylist() == [{"value": row[numerator]}]
    expected = None if not row[denominator] else float(row[numerator]) / float(row[denominator])
    assert row[name] == (None if expected is None else pytest.approx(expected, rel=1e-12))


def test_a_condition_and_a_joined_dimension(company: Settings, ask: Callable[..., Rows]) -> None:
    found = ask(
        "captured_volume",
        by=["risk_tier"],
        where="(currency_code in ('EUR', 'USD') or is_eea) and day >= '2024-01-05' and not risk_tier is null",
        order=["-captured_volume"],
        limit=2,
    )
    by_hand = run_query(
        company,
        """
        select merchants.risk_tier as merchant__risk_tier, sum(sales.gross_amount_reporting) as captured_volume
        from fct_sales as sales
        left join dim_merchant as merchants using (merchant_key)
        left join dim_country as countries using (country_key)
        where
            sales.is_ever_captured and (sales.currency_code in ('EUR', 'USD') or countries.is_eea)
            and sales.business_date >= '2024-01-05' and merchants.risk_tier is not null
        group by all order by 2 desc limit 2
        """,
    ).to_pylist()
    assert len(by_hand) == 2
    assert found == by_hand


@pytest.mark.parametrize("name", ["acceptance_by_day", "volume_by_month", "take_rate_by_trade"])
def test_a_saved_query_answers(name: str, metrics: Metrics) -> None:
    assert set(metrics.saved) == {"acceptance_by_day", "volume_by_month", "take_rate_by_trade"}
    assert metrics.run(metrics.saved_sql(name)).num_rows > 0


@pytest.mark.parametrize(
    ("names", "how", "says"),
    [
        (["take_rat"], {}, "did you mean take_rate"),
        (["net_volume"], {"by": ["risk_tier"]}, "there is no dimension"),
        (["net_volume"], {"by": ["currency_cod"]}, "did you mean currency_code"),
        (["net_volume"], {"order": ["size"]}, "there is no column to order by"),
        (["net_volume"], {"where": "currency_code = "}, "not one"),
        (["net_volume"], {"where": "1 = 1"}, "not one"),
        (["net_volume"], {"where": "currency_code = '{{ 7 }}'"}, "not one"),
        (["net_volume"], {"where": "exists (select 1 from fct_sales)"}, "not one"),
        (["net_volume"], {"where": "currency_code = getenv('HOME')"}, "not one"),
        (["net_volume"], {"where": "colour = 'red'"}, "there is no dimension"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_advice(
    names: list[str], how: dict[str, Any], says: str, metrics: Metrics
) -> None:
    with pytest.raises(QueryError) as caught:
        metrics.sql(names, **how)
    assert says in str(caught.value)
    assert caught.value.kept and caught.value.todo


def test_a_warehouse_that_was_never_built_has_no_metrics(make_settings: MakeSettings, tmp_path: Any) -> None:
    with pytest.raises(ConfigurationError, match="warehouse refresh"):
        Metrics(make_settings(tmp_path))


def test_the_command(company: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = company.dbt_env_secret_warehouse_key
    assert secret is not None
    monkeypatch.setenv("WAREHOUSE_HOME", str(company.warehouse_home))
    monkeypatch.setenv("DBT_ENV_SECRET_WAREHOUSE_KEY", secret.get_secret_value())
    get_settings.cache_clear()
    run = CliRunner().invoke
    try:
        (row,) = json.loads(run(app, ["metric", "take_rate", "--json"]).output)
        assert Decimal(row["fees"]) > 0 and row["take_rate"] > 0
        assert "select" in run(app, ["metric", "take_rate", "--by", "month", "--sql"]).output.lower()
        assert "country__region" in run(app, ["metric", "take_rate", "--dimensions"]).output
        listed = json.loads(run(app, ["metric", "--json"]).output)
        assert {found["name"] for found in listed["metrics"]} == EVERY.keys() | RATES.keys()
        assert "Authorized" in run(app, ["metric"]).output
        assert json.loads(run(app, ["metric", "--saved", "volume_by_month", "--json"]).output)
        refused = run(app, ["metric", "take_rate", "--saved", "volume_by_month"])
        assert refused.exit_code == ConfigurationError.exit_code
        assert run(app, ["metric", "nothing"]).exit_code == QueryError.exit_code
    finally:
        get_settings.cache_clear()


def _dated(rows: Rows) -> Rows:
    """Months as dates: DuckDB truncates a date to a date and an instant to an instant."""
    return [{name: value.date() if hasattr(value, "date") else value for name, value in row.items()} for row in rows]
