"""What must be true of `public` before it is published.

Rules about keys and text columns are generated for every table that is there, so that a new mart is guarded from its
first day; what a mart must say about money, time and completeness is written below by hand. dbt tests the models as
they are built; these suites look at the result as its readers will, and across the whole way from `raw_*`.
"""

from __future__ import annotations

import duckdb
from great_expectations.expectations.expectation import Expectation

from expectations.rules import (
    CURRENCY,
    Suite,
    between,
    matches,
    never,
    no_personal_text,
    not_in_future,
    not_null,
    one_of,
    rarely,
    returns_nothing,
    unique,
)
from warehouse.core.settings import CATALOG

MD5 = "[0-9a-f]{32}"
OBJECT_ID = "[0-9a-f]{24}"
MEMBER_KEY = f"{MD5}|-[123]"
"""md5 text, or a default member: -1 unknown, -2 not applicable, -3 erased."""

MAX_UNKNOWN_SHARE = 0.02
"""Of a fact's rows that may point to the unknown member: orphans arrive before their parents."""

MAX_RATE_AGE_DAYS = 7

GRAINS: dict[str, tuple[str, ...]] = {
    "dim_compliance": ("compliance_key",),
    "dim_country": ("country_key",),
    "dim_currency": ("currency_key",),
    "dim_customer": ("customer_key",),
    "dim_customer_history": ("customer_version_key",),
    "dim_date": ("date_key",),
    "dim_device": ("device_key",),
    "dim_fraud_rule": ("fraud_rule_key",),
    "dim_location": ("location_key",),
    "dim_merchant": ("merchant_key",),
    "dim_merchant_history": ("merchant_version_key",),
    "dim_payment_method": ("payment_method_key",),
    "dim_payment_profile": ("payment_profile_key",),
    "dim_product": ("product_key",),
    "dim_product_history": ("product_version_key",),
    "dim_status": ("status_key",),
    "dim_time": ("time_key",),
    "fct_balance_movement": ("balance_movement_key",),
    "fct_compliance_status": ("subject_type", "subject_id", "compliance_key", "business_date_key"),
    "fct_dispute_event": ("dispute_event_key",),
    "fct_error": ("error_key",),
    "fct_exchange_rate": ("currency_code", "rate_date"),
    "fct_feedback": ("feedback_key",),
    "fct_fraud": ("source_system", "transaction_id"),
    "fct_fraud_assessment": ("assessment_key",),
    "fct_interaction": ("interaction_key",),
    "fct_merchant_balance_daily": ("merchant_key", "currency_code", "business_date"),
    "fct_payment_attempt": ("attempt_key",),
    "fct_payment_lifecycle": ("source_system", "transaction_id"),
    "fct_refund": ("refund_key",),
    "fct_sales": ("source_system", "transaction_id"),
    "fct_settlement": ("settlement_key",),
    "rpt_acceptance": ("business_date_key", "country_key", "card_brand", "merchant_category_group"),
    "rpt_balance_change": ("merchant_key", "currency_code", "month_start_date"),
    "rpt_cohort_retention": ("cohort_month", "months_since"),
    "rpt_compliance_scorecard": ("as_of_date", "compliance_key", "subject_type"),
    "rpt_customer_overview": ("country_code", "age_band", "kyc_status"),
    "rpt_daily_overview": ("business_date", "currency_code", "source_system"),
    "rpt_dispute_activity": ("first_of_week",),
    "rpt_dispute_vintage": ("charge_month", "months_since"),
    "rpt_fraud_loss": ("business_month", "source_system", "merchant_category_group"),
    "rpt_merchant_overview": ("merchant_key", "month_start", "currency_code"),
    "rpt_payout_reconciliation": ("payout_id",),
    "rpt_product_sales": ("product_key", "month_start", "currency_code"),
    "rpt_scheme_monitoring": ("merchant_key", "card_scheme", "business_month"),
    "rpt_tra_reference": ("as_of_date_key", "value_up_to_eur"),
}
"""The marts that must be there, and what makes their rows unique."""

_LANDED_PAYMENTS = """(
    select transaction_id, 'oltp' as source_system, amount
    from raw_oltp.transaction
    where _deleted_at is null
    union all
    select json_extract_string(document, '$.transaction_id'), 'mongodb', null
    from raw_mongodb.transactions
    where _deleted_at is null
)"""


def _not_empty_if_landed(landed: str = _LANDED_PAYMENTS) -> Expectation:
    return returns_nothing(
        "not empty when payments have landed",
        f"select 1 as broken where not exists (select 1 from {{batch}}) and exists (select 1 from {landed}) limit 1",
    )


def _complete() -> tuple[Expectation, ...]:
    """One row per landed payment: none lost, none invented."""
    same_payment = "landed.source_system = mart.source_system and landed.transaction_id = mart.transaction_id"
    return (
        _not_empty_if_landed(),
        returns_nothing(
            "every landed payment is there",
            f"select 1 as broken from {_LANDED_PAYMENTS} as landed"
            f" anti join {{batch}} as mart on {same_payment} limit 1",
            column="transaction_id",
        ),
        returns_nothing(
            "every payment has landed",
            "select 1 as broken from {batch} as mart anti join (select transaction_id, 'oltp' as source_system"
            " from raw_oltp.transaction union all select json_extract_string(document, '$.transaction_id'), 'mongodb'"
            f" from raw_mongodb.transactions) as landed on {same_payment} limit 1",
            column="transaction_id",
        ),
    )


def _unknown_share(*columns: str) -> tuple[Expectation, ...]:
    return tuple(
        returns_nothing(
            f"at most {MAX_UNKNOWN_SHARE:.0%} unknown members",
            f"select 1 as broken from (select count_if({column} = '-1') as unknown, count(*) as facts from {{batch}})"
            f" where unknown > {MAX_UNKNOWN_SHARE} * facts limit 1",
            column=column,
        )
        for column in columns
    )


def _versions(entity: str) -> tuple[Expectation, ...]:
    """Type 2 history: intervals that neither overlap nor run backwards, exactly one current version per member."""
    key = f"{entity}_key"
    return (
        never("ends after it begins", "valid_to <= valid_from", column="valid_to"),
        returns_nothing(
            "versions of a member never overlap",
            f"select 1 as broken from (select valid_to > lead(valid_from) over (partition by {key} order by valid_from)"
            " as is_overlapping from {batch}) where is_overlapping limit 1",
            column="valid_from",
        ),
        returns_nothing(
            "exactly one version of a member is current",
            f"select 1 as broken from {{batch}} group by {key} having count_if(is_current) <> 1 limit 1",
            column="is_current",
        ),
    )


BUSINESS_RULES: dict[str, tuple[Expectation, ...]] = {
    "fct_sales": (
        *_complete(),
        *_unknown_share("customer_key", "merchant_key", "currency_key", "status_key"),
        one_of("source_system", "oltp", "mongodb"),
        between("amount", 0, None),
        between("tax", 0, None),
        matches("currency_code", CURRENCY),
        matches("reporting_currency_code", CURRENCY),
        returns_nothing(
            "the amount that landed, to the last digit",
            "select 1 as broken from {batch} as mart inner join raw_oltp.transaction as landed"
            " on mart.source_system = 'oltp' and mart.transaction_id = landed.transaction_id"
            " where mart.amount is distinct from landed.amount limit 1",
            column="amount",
        ),
        rarely(
            "no more decimals than the currency has",
            "(amount * 10000)::hugeint % power(10, 4 - currency_exponent)::hugeint <> 0",
            column="amount",
        ),
        never(
            "amount excluding tax + tax = gross", "amount_excluding_tax + tax <> gross_amount", column="gross_amount"
        ),
        never("gross - fee = net", "gross_amount - fee_amount <> net_amount", column="net_amount"),
        never(
            "a converted amount has a rate, a missing rate no amount",
            "(reporting_rate is null) <> (amount_reporting is null) and amount is not null",
            column="amount_reporting",
        ),
        never(
            "a currency converts to itself at 1",
            "currency_code = reporting_currency_code and reporting_rate <> 1",
            column="reporting_rate",
        ),
        never(
            "the rate is of the business date or the week before",
            "reporting_rate is not null"
            f" and (reporting_rate_date > business_date or reporting_rate_age_days > {MAX_RATE_AGE_DAYS})",
            column="reporting_rate_date",
        ),
        never(
            "the business date is the day of the event in some time zone",
            "abs(date_diff('day', event_at_utc::date, business_date)) > 1",
            column="business_date",
        ),
        not_in_future("event_at_utc"),
        not_in_future("updated_at"),
    ),
    "fct_fraud": (
        *_complete(),
        between("deciding_score", 0, 1),
        one_of("decision", "approve", "review", "block"),
        between("gross_loss_amount", 0, None),
        between("recovered_amount", 0, None),
        never(
            "gross - recovered = net",
            "gross_loss_amount - recovered_amount <> net_loss_amount",
            column="net_loss_amount",
        ),
        never("only a label confirms fraud", "is_confirmed_fraud and label is null", column="is_confirmed_fraud"),
        never(
            "a blocked payment loses nothing",
            "decision = 'block' and not is_ever_captured and gross_loss_amount > 0",
            column="gross_loss_amount",
        ),
    ),
    "fct_exchange_rate": (
        matches("currency_code", CURRENCY),
        never("above 0", "rate_to_reporting <= 0", column="rate_to_reporting"),
        never("published before it is used", "rate_source_date > rate_date", column="rate_source_date"),
        never(
            "too old a rate does not convert",
            f"rate_to_reporting is not null and rate_age_days > {MAX_RATE_AGE_DAYS}",
            column="rate_age_days",
        ),
    ),
    "dim_customer": (_not_empty_if_landed("raw_oltp.customer"),),
    "dim_customer_history": _versions("customer"),
    "dim_merchant_history": _versions("merchant"),
    "dim_product_history": _versions("product"),
    "dim_product": (
        between("total_sell", 0, None),
        returns_nothing(
            "units sold are those of the captured sales",
            "select 1 as broken from (select sum(total_sell) as units from {batch}) as products"
            " cross join (select coalesce(sum(quantity), 0) as units from public.fct_sales"
            " where is_ever_captured and product_key not in ('-1', '-2', '-3')) as sales"
            " where products.units <> sales.units limit 1",
            column="total_sell",
        ),
    ),
    "dim_currency": (between("currency_exponent", 0, 4),),
    "rpt_daily_overview": (
        _not_empty_if_landed(),
        returns_nothing(
            "counts every payment once",
            "select 1 as broken from (select coalesce(sum(transactions), 0) as payments from {batch}) as overview"
            " cross join (select count(*) as payments from public.fct_sales) as sales"
            " where overview.payments <> sales.payments limit 1",
            column="transactions",
        ),
        never(
            "captured, authorized and all payments nest",
            "captured_transactions > transactions or authorized_transactions > transactions",
            column="captured_transactions",
        ),
        never(
            "captured - refunded - lost = net",
            "captured_amount - refunded_amount - dispute_lost_amount <> net_volume",
            column="net_volume",
        ),
        between("authorization_denominator", 0, None),
    ),
}


def suites(connection: duckdb.DuckDBPyConnection) -> list[Suite]:
    """One suite per table of `public`, and one for each mart that must be there."""
    columns = _columns(connection)
    return [
        Suite(
            "public",
            table,
            (*_generated(table, columns.get(table, {})), *BUSINESS_RULES.get(table, ())),
        )
        for table in sorted(GRAINS.keys() | columns.keys())
    ]


def _generated(table: str, columns: dict[str, str]) -> list[Expectation]:
    rules: list[Expectation] = []
    if grain := GRAINS.get(table):
        rules += [*(not_null(column) for column in grain), unique(*grain)]
    for column, sql_type in columns.items():
        if column.endswith("_key"):
            if column not in GRAINS.get(table, ()):
                rules.append(not_null(column))
            if sql_type == "VARCHAR":
                rules.append(matches(column, MEMBER_KEY))
        elif column == "row_version":
            rules.append(matches(column, MD5))
        elif sql_type == "VARCHAR":
            rules.append(no_personal_text(column, but=OBJECT_ID if column == "document_id" else None))
    if table.startswith("dim_"):
        rules.append(_not_empty())
    return rules


def _not_empty() -> Expectation:
    return returns_nothing(
        "holds at least its default members", "select 1 as broken where not exists (select 1 from {batch}) limit 1"
    )


def _columns(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    """Table of `public` → column → type."""
    found: dict[str, dict[str, str]] = {}
    for table, column, sql_type in connection.execute(
        "select table_name, column_name, data_type from information_schema.columns"
        " where table_catalog = ? and table_schema = 'public' order by table_name, ordinal_position",
        [CATALOG],
    ).fetchall():
        found.setdefault(table, {})[column] = sql_type
    return found
