"""Both borders: a sound warehouse passes, every planted fault is named, and no planted value leaves the database."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
import sqlalchemy as sa

from expectations import QualityReport, run_landing, run_publishing
from expectations.publishing import GRAINS
from tests.conftest import MakeSettings
from tests.integration.small_warehouse import TOKEN, build
from warehouse.core.database import open_warehouse
from warehouse.core.errors import ConfigurationError
from warehouse.core.settings import Settings

PERSONAL_TEXT = "holds no e-mail address and no card number"

EMAIL = "planted.person@example.com"
CARD = "4111 1111 1111 1111"
NAME = "Planted Person"
ADDRESS = "203.0.113.77"
SECRETS = (EMAIL, CARD, NAME, ADDRESS)

# statement that plants a fault → what must be reported: suite, rule, column
LANDING_FAULTS: dict[str, set[tuple[str, str, str | None]]] = {
    "update raw_oltp.location set location_id = null": {
        ("raw_oltp.location", "expect_column_values_to_not_be_null", "location_id")
    },
    "insert into raw_oltp.status from raw_oltp.status": {
        ("raw_oltp.status", "expect_column_values_to_be_unique", "status_code")
    },
    f"update raw_oltp.customer set email_token = '{EMAIL}'": {
        ("raw_oltp.customer", "matches v[0-9]{1,4}:[0-9a-f]{64}", "email_token")
    },
    f"update raw_oltp.merchant set trade_name = '{CARD}'": {("raw_oltp.merchant", PERSONAL_TEXT, "trade_name")},
    "update raw_oltp.transaction set amount = -1, tax = -2": {
        ("raw_oltp.transaction", "expect_column_values_to_be_between", "amount"),
        ("raw_oltp.transaction", "expect_column_values_to_be_between", "tax"),
    },
    "update raw_oltp.transaction_history set amount = 120.505": {
        ("raw_oltp.transaction_history", "no more decimals than the currency has", "amount")
    },
    "update raw_oltp.product set _row_hash = 'other', currency_code = 'euro'": {
        ("raw_oltp.product", "every current row is in the history", "_row_hash"),
        ("raw_oltp.product", "matches [A-Z]{3}", "currency_code"),
    },
    f"alter table raw_oltp.device add column ip_address varchar default '{ADDRESS}'": {
        ("raw_oltp.device", "expect_table_columns_to_match_set", None),
        ("raw_oltp.device", "every column has its pinned type", None),
    },
    "alter table raw_oltp.currency alter numeric_code type integer": {
        ("raw_oltp.currency", "every column has its pinned type", None)
    },
    "update raw_oltp.payment_method set card_number_last4 = '11a1', updated_at = '2999-01-01'": {
        ("raw_oltp.payment_method", "matches [0-9]{4}", "card_number_last4"),
        ("raw_oltp.payment_method", "not in the future", "updated_at"),
    },
    f"""update raw_mongodb.transactions
        set document = '{{"transaction_id": "T", "fraud_score": 7, "location": {{"ip": "{ADDRESS}"}}}}'""": {
        ("raw_mongodb.transactions", "the plain key is absent", "document.location.ip"),
        ("raw_mongodb.transactions", "at least 0 and at most 1", "document.fraud_score"),
    },
    f"""update raw_mongodb.merchants set document = '{{"merchant_id": "M", "profile": {{"website": "{EMAIL}"}},
        "beneficial_owners": [{{"name_token": "{TOKEN}"}}, {{"name_token": "{NAME}"}}],
        "_unknown": [{{"key": "fax", "value_token": "{NAME}"}}]}}'""": {
        ("raw_mongodb.merchants", PERSONAL_TEXT, "document"),
        ("raw_mongodb.merchants", "is a token", "document.beneficial_owners[*].name_token"),
        ("raw_mongodb.merchants", "undeclared keys land as tokens", "document._unknown"),
    },
    """update raw_stream.payments_transactions
        set document = '{"amount": "-1.23456", "event_type": "payment.captured"}'""": {
        ("raw_stream.payments_transactions", "a decimal of at most 4 places", "document.amount"),
        ("raw_stream.payments_transactions", "not negative, payouts apart", "document.amount"),
    },
    "drop table raw_mongodb.products_history": {("raw_mongodb.products_history", "the table exists", None)},
    "update raw_ops.load_manifest set source_rows = 1000 where table_name = 'customer'": {
        ("raw_ops.load_manifest", "source = unchanged + landed + quarantined", "source_rows")
    },
    "update raw_ops.load_manifest set source_rows = 1, landed_rows = 0, quarantined_rows = 1"
    " where table_name = 'device'": {
        ("raw_ops.load_manifest", "at most 1% of a table's newest load is quarantined", "quarantined_rows")
    },
}  # fmt: skip

# The history of products is gone, so that its current rows cannot be looked up there.
LANDING_CONSEQUENCES = {
    ("raw_mongodb.products", "every current row is in the history (could not be evaluated)", "_row_hash")
}

PUBLISHING_FAULTS: dict[str, set[tuple[str, str, str | None]]] = {
    "insert into public.dim_status from public.dim_status": {
        ("public.dim_status", "expect_column_values_to_be_unique", "status_key")
    },
    "update public.dim_location set location_key = null": {
        ("public.dim_location", "expect_column_values_to_not_be_null", "location_key")
    },
    "update public.dim_country set country_key = 'DE'": {
        ("public.dim_country", "matches [0-9a-f]{32}|-[123]", "country_key")
    },
    "delete from public.dim_compliance": {("public.dim_compliance", "holds at least its default members", None)},
    "drop table public.dim_date": {("public.dim_date", "the table exists", None)},
    f"update public.dim_device set network = '{EMAIL}'": {("public.dim_device", PERSONAL_TEXT, "network")},
    f"update public.dim_payment_method set masked_card_number = '{CARD}'": {
        ("public.dim_payment_method", PERSONAL_TEXT, "masked_card_number")
    },
    "update public.dim_customer_history set valid_to = '2024-06-01' where not is_current": {
        ("public.dim_customer_history", "versions of a member never overlap", "valid_from")
    },
    "update public.dim_merchant_history set is_current = false": {
        ("public.dim_merchant_history", "exactly one version of a member is current", "is_current")
    },
    "update public.dim_product set total_sell = 7": {
        ("public.dim_product", "units sold are those of the captured sales", "total_sell")
    },
    "update public.fct_sales set net_amount = 1, customer_key = '-1' where transaction_id = 'TXN001'": {
        ("public.fct_sales", "gross - fee = net", "net_amount"),
        ("public.fct_sales", "at most 2% unknown members", "customer_key"),
    },
    "update public.fct_sales set amount = amount + 0.001 where transaction_id = 'TXN001'": {
        ("public.fct_sales", "the amount that landed, to the last digit", "amount"),
        ("public.fct_sales", "no more decimals than the currency has", "amount"),
    },
    "update public.fct_sales set fee_amount = null, amount_reporting = 5, event_at_utc = '2999-01-01'"
    " where transaction_id = 'TX1005'": {
        ("public.fct_sales", "a converted amount has a rate, a missing rate no amount", "amount_reporting"),
        ("public.fct_sales", "not in the future", "event_at_utc"),
        ("public.fct_sales", "the business date is the day of the event in some time zone", "business_date"),
    },
    "update public.fct_fraud set transaction_id = 'TX9999', gross_loss_amount = -1 where source_system = 'mongodb'": {
        ("public.fct_fraud", "every landed payment is there", "transaction_id"),
        ("public.fct_fraud", "every payment has landed", "transaction_id"),
        ("public.fct_fraud", "expect_column_values_to_be_between", "gross_loss_amount"),
        ("public.fct_fraud", "gross - recovered = net", "net_loss_amount"),
    },
    "update public.fct_exchange_rate set rate_source_date = '2024-01-03', rate_to_reporting = 0": {
        ("public.fct_exchange_rate", "published before it is used", "rate_source_date"),
        ("public.fct_exchange_rate", "above 0", "rate_to_reporting"),
    },
    # A rule that cannot be evaluated has not passed.
    "alter table public.fct_exchange_rate alter rate_age_days type varchar": set(),
    f"update public.fct_exchange_rate set rate_age_days = '{NAME}'": {
        ("public.fct_exchange_rate", "too old a rate does not convert (could not be evaluated)", "rate_age_days")
    },
    "delete from public.rpt_daily_overview": {
        ("public.rpt_daily_overview", "not empty when payments have landed", None),
        ("public.rpt_daily_overview", "counts every payment once", "transactions"),
    },
}  # fmt: skip


@pytest.fixture
def settings(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    """A sound warehouse of its own."""
    settings = make_settings(tmp_path / "home")
    build(settings)
    return settings


@dataclass(frozen=True)
class Sound:
    """Both borders of a sound warehouse, run once for all tests that only look at the result."""

    reports: tuple[QualityReport, QualityReport]
    progress: list[str]
    elsewhere: Path
    """What the runs had for a working directory and a home directory."""


@pytest.fixture(scope="module")
def sound(make_settings: MakeSettings, tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """A sound warehouse, checked."""
    settings = make_settings(tmp_path_factory.mktemp("sound") / "home")
    build(settings)
    progress: list[str] = []
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(elsewhere)
        patch.setenv("HOME", str(elsewhere))
        reports = run_landing(settings, progress.append), run_publishing(settings, progress.append)
    return Sound(reports, progress, elsewhere)


def test_sound_warehouse_passes(sound: Sound) -> None:
    for report in sound.reports:
        assert report.failed == ()
        assert report.success
        assert report.evaluated > 100
    assert [report.suites for report in sound.reports] == [34, len(GRAINS)]
    assert any(line.startswith("raw_oltp.transaction ") for line in sound.progress)
    assert any(line.startswith("public.fct_sales ") for line in sound.progress)


def test_data_docs_load_nothing_from_elsewhere(sound: Sound) -> None:
    for report in sound.reports:
        pages = list(report.data_docs.parent.rglob("*.html"))
        assert len(pages) == report.suites + 1
        for page in pages:
            text = page.read_text()
            assert "<script" not in text
            assert not re.search(r"""(src|<link[^>]*href)=["']?https?:""", text)
        index = report.data_docs.read_text()
        for link in re.findall('href="(validations/[^"]+)"', index):
            assert (report.data_docs.parent / link).is_file()
        assert index.count('href="validations/') == report.suites


def test_nothing_is_written_outside_the_home(sound: Sound) -> None:
    assert not list(sound.elsewhere.rglob("*"))


def test_search_for_planted_values_finds_one(sound: Sound, tmp_path: Path) -> None:
    """The search below would find a value if one had leaked."""
    page = tmp_path / "page.html"
    page.write_text(sound.reports[0].data_docs.read_text() + EMAIL)
    assert _files_with(tmp_path, SECRETS) == [page]


Run = Callable[[Settings, Callable[[str], None]], QualityReport]


@pytest.mark.parametrize(
    ("run", "faults", "consequences"),
    [
        pytest.param(run_landing, LANDING_FAULTS, LANDING_CONSEQUENCES, id="landing"),
        pytest.param(run_publishing, PUBLISHING_FAULTS, set(), id="publishing"),
    ],
)
def test_every_planted_fault_is_named_and_nothing_else(
    settings: Settings,
    run: Run,
    faults: dict[str, set[tuple[str, str, str | None]]],
    consequences: set[tuple[str, str, str | None]],
) -> None:
    with open_warehouse(settings) as connection:
        for statement in faults:
            connection.execute(statement)

    report = run(settings, lambda _: None)

    assert not report.success
    expected = set.union(*faults.values()) | consequences
    assert {(failure.suite, failure.expectation, failure.column) for failure in report.failed} == expected
    written = json.dumps(report.to_dict()) + "".join(map(str, report.failed))
    assert not [secret for secret in SECRETS if secret in written]
    assert not _files_with(settings.warehouse_home / "site", SECRETS)


def test_empty_facts_pass_when_no_payment_has_landed(settings: Settings) -> None:
    with open_warehouse(settings) as connection:
        for table in (
            "raw_oltp.transaction",
            "raw_mongodb.transactions",
            "public.fct_sales",
            "public.fct_fraud",
            "public.rpt_daily_overview",
        ):
            connection.execute(f"delete from {table}")
        connection.execute("update public.dim_product set total_sell = 0")
    assert run_publishing(settings, lambda _: None).failed == ()


def test_an_error_of_the_database_is_passed_on_without_its_message() -> None:
    """DuckDB says which value could not be cast; Great Expectations would write that into the data docs."""
    from expectations.datasource import HeldDuckDBDatasource, QueryFailed

    with duckdb.connect() as connection:
        datasource = HeldDuckDBDatasource(name="memory", database_schema="main")
        datasource.hold(connection)
        engine = datasource.get_execution_engine()
        with pytest.raises(QueryFailed) as caught:
            engine.execute_query(sa.text(f"select '{NAME}'::integer"))
        assert engine.execute_query(sa.text("select 1")).scalar() == 1
    assert str(caught.value) == "ConversionException"
    assert NAME not in "".join(traceback.format_exception(caught.value)).replace(f"select '{NAME}'", "")


def test_without_a_warehouse_there_is_a_clear_error(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "home")
    with pytest.raises(ConfigurationError, match="does not exist yet"):
        run_landing(settings, lambda _: None)


def _files_with(folder: Path, values: tuple[str, ...]) -> list[Path]:
    needles = [value.encode() for value in values]
    return [
        path for path in folder.rglob("*") if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    ]
