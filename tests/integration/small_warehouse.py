"""A warehouse small enough to write by hand: raw tables with a few good rows, and the marts they would become."""

from __future__ import annotations

from typing import Any

import duckdb

from expectations.publishing import GRAINS
from ingestion.raw import create_raw_tables, raw_table_names
from ingestion.schema import Table, all_tables
from warehouse.core.database import open_warehouse
from warehouse.core.settings import Settings

TOKEN = "v1:" + "0123456789abcdef" * 4
LANDED = {
    "_row_hash": "5d41402abc4b2a76b9719d911017c592",
    "_landed_at": "2024-01-02T03:00:00Z",
    "_load_id": "load-1",
    "_dlt_load_id": "1704164400.1",
}

ROWS: dict[str, dict[str, Any]] = {
    "raw_oltp.currency": {"currency_code": "EUR", "numeric_code": "978", "currency_name": "Euro", "minor_unit": 2},
    "raw_oltp.location": {
        "location_id": "LOC1",
        "country_code": "DE",
        "city": "Berlin",
        "postal_code_token": TOKEN,
        "postal_prefix": "10",
        "latitude_token": TOKEN,
        "latitude_degree": 52,
        "longitude_token": TOKEN,
        "longitude_degree": 13,
    },
    "raw_oltp.customer": {
        "customer_id": "CUSTOMER001",
        "first_name_token": TOKEN,
        "last_name_token": TOKEN,
        "email_token": TOKEN,
        "email_domain": "example.org",
        "phone_token": TOKEN,
        "date_of_birth_token": TOKEN,
        "birth_year": 1980,
        "location_id": "LOC1",
        "kyc_status": "verified",
        "marketing_consent": True,
    },
    "raw_oltp.merchant": {
        "merchant_id": "MERCHANT001",
        "legal_name_token": TOKEN,
        "trade_name": "Corner Shop",
        "mcc": "5411",
        "settlement_currency": "EUR",
        "time_zone": "Europe/Berlin",
        "pci_level": 4,
    },
    "raw_oltp.product": {
        "product_id": "PRODUCT001",
        "merchant_id": "MERCHANT001",
        "product_name": "Laptop",
        "category": "Electronics",
        "unit_price": "120.50",
        "currency_code": "EUR",
        "is_active": True,
    },
    "raw_oltp.device": {
        "device_id": "DEVICE001",
        "customer_id": "CUSTOMER001",
        "fingerprint_token": TOKEN,
        "ip_address_token": TOKEN,
        "ip_network": "10.0.0.0/24",
    },
    "raw_oltp.payment_method": {
        "payment_method_id": "PM001",
        "customer_id": "CUSTOMER001",
        "method_type": "card",
        "card_brand": "visa",
        "card_number_token": TOKEN,
        "card_number_bin": "41111111",
        "card_number_last4": "1111",
        "card_expiry": "2030-01",
    },
    "raw_oltp.status": {"status_code": "captured", "description": "Captured", "is_final": False},
    "raw_oltp.transaction": {
        "transaction_id": "TXN001",
        "merchant_id": "MERCHANT001",
        "customer_id": "CUSTOMER001",
        "payment_method_id": "PM001",
        "product_id": "PRODUCT001",
        "quantity": 1,
        "device_id": "DEVICE001",
        "location_id": "LOC1",
        "currency_code": "EUR",
        "amount": "120.50",
        "tax": "10.00",
        "status_code": "captured",
        "created_at": "2024-01-02T01:00:00Z",
        "updated_at": "2024-01-02T02:00:00Z",
    },
    "raw_mongodb.transactions": {
        "_id": "650000000000000000000001",
        "document": (
            '{"transaction_id": "TX1005", "customer_id": "CUST005", "merchant_id": "MERCH003", "amount": 890.5,'
            ' "currency": {"code": "USD", "rate_to_usd": 1.0}, "fraud_score": 0.75, "status": "fraudulent",'
            f' "location": {{"country": "US", "geo": {{"lat_token": "{TOKEN}", "lat_degree": 40}},'
            f' "ip_token": "{TOKEN}", "ip_network": "10.0.0.0/24"}}, "_unknown": null}}'
        ),
    },
    "raw_mongodb.merchants": {
        "_id": "650000000000000000000002",
        "document": (
            '{"merchant_id": "MERCH003", "profile": {"display_name": "Corner Shop", "support_email_token":'
            f' "{TOKEN}", "email_domain": "example.org"}}, "beneficial_owners": [{{"name_token": "{TOKEN}"}},'
            f' {{"name_token": "{TOKEN}"}}], "_unknown": [{{"key": "fax", "value_token": "{TOKEN}"}}]}}'
        ),
    },
    "raw_stream.payments_transactions": {
        "kafka_topic": "payments.transactions",
        "kafka_partition": 0,
        "kafka_offset": 0,
        "produced_at": "2024-01-02T02:00:01Z",
        "message_key": "TXN001",
        "document": (
            '{"schema_version": 1, "event_id": "EVT1", "event_type": "payment.captured", "transaction_id": "TXN001",'
            ' "occurred_at": "2024-01-02T02:00:00.000000Z", "amount": "120.50", "currency_code": "EUR"}'
        ),
    },
}

MARTS = """
create schema public;
create schema ops;

create table public.dim_currency as
select md5('EUR') as currency_key, 'EUR' as currency_code, 2::smallint as currency_exponent
union all
select md5('USD'), 'USD', 2;

create table public.dim_customer_history as
select
    md5('1') as customer_version_key, md5('c') as customer_key, 'CUSTOMER001' as customer_id, false as is_current,
    '1900-01-01'::timestamptz as valid_from, '2024-01-02'::timestamptz as valid_to
union all
select md5('2'), md5('c'), 'CUSTOMER001', true, '2024-01-02'::timestamptz, '9999-12-31'::timestamptz;

create table public.dim_customer as
select customer_key, customer_version_key, customer_id from public.dim_customer_history where is_current;

create table public.dim_merchant_history as
select
    md5('m1') as merchant_version_key, md5('m') as merchant_key, 'Corner Shop' as trade_name, true as is_current,
    '1900-01-01'::timestamptz as valid_from, '9999-12-31'::timestamptz as valid_to;

create table public.dim_merchant as
select merchant_key, merchant_version_key, trade_name from public.dim_merchant_history;

create table public.dim_product_history as
select
    md5('p1') as product_version_key, md5('p') as product_key, 'Laptop' as product_name, true as is_current,
    '1900-01-01'::timestamptz as valid_from, '9999-12-31'::timestamptz as valid_to;

create table public.dim_product as
select product_key, product_version_key, product_name, 'Electronics' as category, 1::bigint as total_sell
from public.dim_product_history;

create table public.dim_date as select 20240102 as date_key, '2024-01-02'::date as date_day;
create table public.dim_status as select md5('captured') as status_key, 'captured' as status_code;
create table public.dim_country as select md5('DE') as country_key, 'Germany' as country_name;
create table public.dim_location as select md5('l') as location_key, 'Berlin' as city;
create table public.dim_device as select md5('d') as device_key, '10.0.0.0/16' as network;
create table public.dim_payment_method as
select md5('pm') as payment_method_key, '411111******1111' as masked_card_number;
create table public.dim_compliance as select md5('k') as compliance_key, 'GDPR' as regulation;

create table public.fct_sales as
select
    md5('oltp|TXN001') as transaction_key, 'oltp' as source_system, 'TXN001' as transaction_id,
    md5('c') as customer_key, md5('m') as merchant_key, md5('p') as product_key, md5('EUR') as currency_key,
    md5('captured') as status_key, 20240102 as business_date_key,
    'EUR' as currency_code, 'EUR' as reporting_currency_code, 1 as quantity, 2::smallint as currency_exponent,
    120.5::decimal(18, 4) as amount, 10::decimal(18, 4) as tax, 110.5::decimal(18, 4) as amount_excluding_tax,
    120.5::decimal(18, 4) as gross_amount, 2.5::decimal(18, 4) as fee_amount, 118::decimal(18, 4) as net_amount,
    120.5::decimal(18, 4) as amount_reporting, 1::decimal(18, 8) as reporting_rate,
    '2024-01-02'::date as reporting_rate_date, 0 as reporting_rate_age_days, true as is_ever_captured,
    '2024-01-02'::date as business_date,
    '2024-01-02 01:00:00+00'::timestamptz as event_at_utc, '2024-01-02 02:00:00+00'::timestamptz as updated_at
union all
select
    md5('mongodb|TX1005'), 'mongodb', 'TX1005', md5('c'), md5('m'), '-2', md5('USD'), md5('captured'), 20240102,
    'USD', 'EUR', 1, 2, 890.5, 0, 890.5, 890.5, 0, 890.5, null, null, null, null, false,
    '2024-01-02'::date, '2024-01-02 01:00:00+00'::timestamptz, '2024-01-02 02:00:00+00'::timestamptz;

create table public.fct_fraud as
select
    transaction_key, source_system, transaction_id, 0.75 as deciding_score, 'approve' as decision,
    null::varchar as label, null::varchar as label_source, false as is_confirmed_fraud, is_ever_captured,
    0::decimal(18, 4) as gross_loss_amount, 0::decimal(18, 4) as recovered_amount, 0::decimal(18, 4) as net_loss_amount
from public.fct_sales;

create table public.fct_exchange_rate as
select
    md5('USD|2024-01-02') as exchange_rate_key, 'USD' as currency_code, 0.91::decimal(18, 8) as rate_to_reporting,
    '2024-01-02'::date as rate_date, '2024-01-02'::date as rate_source_date, 0 as rate_age_days;

create table public.rpt_daily_overview as
select
    md5(currency_code) as daily_overview_key, business_date, currency_code, source_system,
    count(*) as transactions, count(*) as authorized_transactions, count_if(is_ever_captured) as captured_transactions,
    count(*) as authorization_denominator, sum(amount) as captured_amount, 0::decimal(38, 4) as refunded_amount,
    0::decimal(38, 4) as dispute_lost_amount, sum(amount) as net_volume
from public.fct_sales
group by business_date, currency_code, source_system;
"""


def build(settings: Settings) -> None:
    """Create the raw tables with one good row each, the manifest of their load, and the marts."""
    with open_warehouse(settings) as connection:
        create_raw_tables(connection)
        for table in all_tables():
            if row := ROWS.get(table.qualified):
                for name in raw_table_names(table):
                    insert(connection, f"{table.raw_schema}.{name}", {**row, **LANDED})
            insert(connection, "raw_ops.load_manifest", _manifest_row(table, 1 if row else 0))
        connection.execute(MARTS)
        for name, grain in GRAINS.items():
            # the marts that no rule but the generated ones speaks of: empty, dimensions with their unknown member
            columns = ", ".join(f"{column} varchar" for column in grain)
            connection.execute(f"create table if not exists public.{name} ({columns})")
            if name in {"dim_fraud_rule", "dim_payment_profile", "dim_time"}:
                insert(connection, f"public.{name}", dict.fromkeys(grain, "-1"))


def insert(connection: duckdb.DuckDBPyConnection, table: str, row: dict[str, Any]) -> None:
    """One row; columns left out are null."""
    names = ", ".join(f'"{name}"' for name in row)
    connection.execute(f"insert into {table} ({names}) values ({', '.join('?' * len(row))})", list(row.values()))


def _manifest_row(table: Table, rows: int) -> dict[str, Any]:
    return {
        "load_id": "load-1",
        "run_id": "run-1",
        "source": table.source,
        "table_name": table.name,
        "mode": "incremental",
        "status": "completed",
        "started_at": "2024-01-02T03:00:00Z",
        "finished_at": "2024-01-02T03:00:05Z",
        "source_rows": rows,
        "unchanged_rows": 0,
        "landed_rows": rows,
        "deleted_rows": 0,
        "quarantined_rows": 0,
        "unknown_keys": 0,
    }
