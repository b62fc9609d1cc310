"""A warehouse small enough to write by hand: raw tables with a few good rows, and the marts they would become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
from pydantic import SecretStr

from ingestion.raw import create_raw_tables, raw_table_names
from ingestion.schema import Table, all_tables
from warehouse.core.database import open_warehouse
from warehouse.core.keys import create_missing_keys
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
            f' "{TOKEN}", "email_domain": "example.org"}}, "beneficial_owners": [{{"full_name_token": "{TOKEN}"}},'
            f' {{"full_name_token": "{TOKEN}"}}], "_unknown": [{{"key": "fax", "value_token": "{TOKEN}"}}]}}'
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
create schema if not exists public;
create schema if not exists ops;
"""


def settings_in(home: Path) -> Settings:
    """Settings of a new home with keys of its own, whatever the environment of the person running the tests says."""
    env_file = home.parent / f"{home.name}.env"
    bare = Settings(_env_file=None, warehouse_home=home, dbt_env_secret_warehouse_key=None)
    create_missing_keys(bare, env_file)
    key = env_file.read_text().strip().split("=", 1)[1]
    return Settings(_env_file=None, warehouse_home=home, dbt_env_secret_warehouse_key=SecretStr(key))


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
