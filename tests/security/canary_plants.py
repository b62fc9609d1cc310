"""Plants the canaries in the real source systems: every class and encoding, nested, in free text, in odd places."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
import psycopg
import pymongo
from confluent_kafka import Producer

from warehouse.core.endpoints import Endpoints
from warehouse.core.kafka import client_config
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.privacy.canaries import CANARIES, free_text, planted

SOURCES = ("oltp", "mongodb", "stream", "files")
TOPIC = "payments.transactions"
WHEN = datetime(2024, 1, 20, tzinfo=UTC)


def plant_everywhere(settings: Settings, endpoints: Endpoints) -> dict[str, int]:
    """Plant in PostgreSQL, MongoDB, Kafka and dropped files; source → how many forms of how many were planted there."""
    return {
        "oltp": _oltp(endpoints),
        "mongodb": _mongodb(endpoints),
        "stream": _stream(settings, endpoints),
        "files": _files(settings),
    }


def _typed() -> dict[str, Any]:
    latitude, longitude = CANARIES["coordinates"].split(",")
    return {"latitude": latitude, "longitude": longitude, "birth_date": CANARIES["birth_date"]}


def _customer(number: int, text: str) -> tuple[Any, ...]:
    """A customer whose every personal column of text holds one form."""
    return (
        f"CUSTOMERKANARI{number:03d}", text, text, text, text, CANARIES["birth_date"], "LOCKANARI", "verified", True,
        WHEN, WHEN, WHEN,
    )  # fmt: skip


def _oltp(endpoints: Endpoints) -> int:
    assert endpoints.postgres_admin_uri
    typed, forms = _typed(), list(planted().values())
    with psycopg.connect(endpoints.postgres_admin_uri) as connection, connection.cursor() as cursor:
        cursor.execute(
            "insert into public.location values ('LOCKANARI', 'DE', null, 'Berlin', %s, %s, %s, %s)",
            (CANARIES["postal_code"], typed["latitude"], typed["longitude"], WHEN),
        )
        for number, text in enumerate(forms):
            cursor.execute(
                f"insert into public.customer values ({', '.join(['%s'] * 12)})",
                _customer(number, text),
            )
            cursor.execute(
                "insert into public.device values (%s, %s, 'mobile', null, null, %s, %s, %s, %s)",
                (f"DEVKANARI{number:03d}", f"CUSTOMERKANARI{number:03d}", text, CANARIES["ip_address"], WHEN, WHEN),
            )
        cursor.execute(
            "insert into public.payment_method values "
            "('PMKANARI', 'CUSTOMERKANARI000', 'card', 'visa', %s, '12/30', 'DE', null, %s, %s)",
            (CANARIES["card_number"], WHEN, WHEN),
        )
        cursor.execute(
            "insert into public.merchant select 'MERCHANTKANARI', %s, trade_name, mcc, location_id, "
            "settlement_currency, time_zone, pci_level, risk_tier, onboarded_at, %s from public.merchant "
            "order by merchant_id limit 1",
            (free_text(), WHEN),
        )
        connection.commit()
    return len(forms)


def _documents() -> dict[str, list[dict[str, Any]]]:
    """Collection → documents that hold every form: declared, undeclared, as a key, nested, and in free text."""
    forms = list(planted().values())
    typed = _typed()
    wide = [value.encode("utf-16-le").decode("latin-1") for value in CANARIES.values()]
    return {
        "customer_feedback": [
            {"customer_id": "CUSTKANARI", "rating": 5, "comment": text, "language": "de", "created_at": WHEN}
            for text in [*forms, *wide, free_text(), " | ".join(forms)]
        ],
        "error_logs": [
            {
                "service": "api", "level": "error", "message": f"Traceback: ValueError({text!r})", "occurred_at": WHEN,
                "context": {
                    "customer_id": "CUSTKANARI", "ip": CANARIES["ip_address"], "email": text,
                    "request": {"body": {"deep": [{"er": text}]}, text.replace(".", "_").replace("$", "_"): 1},
                },
            }
            for text in forms
        ],
        "merchants": [
            {
                "merchant_id": f"MERCHKANARI{number:03d}", "updated_at": WHEN,
                "profile": {"trade_name": "Corner Shop", "support_email": text, "support_phone": text, "fax": text},
                "beneficial_owners": [
                    {"name": text, "date_of_birth": CANARIES["birth_date"], "email": text, "passport": text, "share": 1}
                ],
            }
            for number, text in enumerate(forms)
        ],
        "user_interactions": [
            {
                "customer_id": "CUSTKANARI", "session_id": "S1", "event": "view", "occurred_at": WHEN,
                "device": {"ip": CANARIES["ip_address"], "user_agent": text, "owner": {"called": text}},
            }
            for text in forms
        ],
        "transactions": [
            {
                "transaction_id": "TXNKANARI", "customer_id": "CUSTKANARI", "merchant_id": "MERCHKANARI000",
                "amount": 1.5, "status": "captured",
                "currency": {"code": "EUR", "rate_to_usd": 1.1}, "date": {"created": WHEN, "updated": WHEN},
                "location": {
                    "country": "DE", "city": "Berlin", "ip": CANARIES["ip_address"],
                    "geo": {"lat": float(typed["latitude"]), "lon": float(typed["longitude"])},
                },
                "payer": {text.replace(".", "_").replace("$", "_"): text for text in forms}, "cvv": "917",
            }
        ],
    }  # fmt: skip


_COLLECTIONS = {"transactions": "Transactions"}


def _mongodb(endpoints: Endpoints) -> int:
    assert endpoints.mongodb_admin_uri
    with pymongo.MongoClient(endpoints.mongodb_admin_uri) as client:
        for name, documents in _documents().items():
            client["stripe_nosql"][_COLLECTIONS.get(name, name)].insert_many(documents)
    return len(planted())


def _event(number: int, text: str) -> dict[str, Any]:
    return {
        "schema_version": 1, "event_id": f"EVTKANARI{number}", "event_type": "payment.attempted",
        "source_system": "oltp", "transaction_id": "TXNKANARI", "occurred_at": "2024-01-20T00:00:00.000Z",
        "amount": "1.50", "currency_code": "EUR", "reason": None, "actor": "system",
        "attributes": {"payer": {"wrote": text}, "three_ds": {"outcome": "ok", "cardholder": text}, text: text},
        "customer": [text, {"again": [text]}],
    }  # fmt: skip


def _stream(settings: Settings, endpoints: Endpoints) -> int:
    assert endpoints.kafka_bootstrap
    forms = list(planted().values())
    producer = Producer(client_config(settings, endpoints.kafka_bootstrap))
    for number, text in enumerate(forms):
        producer.produce(TOPIC, key=text.encode(), value=json.dumps(_event(number, text)).encode())
    for payload in (  # what is no event at all is quarantined, and must not show there
        free_text().encode(),
        free_text().encode("utf-16"),
        gzip.compress(free_text().encode()),
        json.dumps([free_text()]).encode(),
        b'{"event_id": "' + free_text().encode(),
    ):
        producer.produce(TOPIC, key=b"broken", value=payload)
    assert producer.flush(30) == 0
    return len(forms)


def _files(settings: Settings) -> int:
    drops = Home.of(settings).drops
    forms = list(planted().values())

    def lines(table: str, rows: list[str]) -> None:
        folder = drops / table
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "kanari.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))

    for name, documents in _documents().items():
        fresh = [
            {"_id": {"$oid": str(bson.ObjectId())}} | json.loads(bson.json_util.dumps(document))
            for document in documents
        ]
        lines(f"mongodb/{name}", [json.dumps(document) for document in fresh])
    at = int((WHEN + timedelta(days=1)).timestamp() * 1000)
    lines(
        "stream/payments_transactions",
        [
            json.dumps(
                {
                    "topic": TOPIC, "partition": 77, "offset": number, "ts": at, "key": text,
                    "payload": json.dumps(_event(1000 + number, text)),
                }
            )
            for number, text in enumerate(forms)
        ],
    )  # fmt: skip
    _write_customers(drops / "oltp" / "customer" / "kanari.csv", forms)
    return len(forms)


def _write_customers(path: Path, forms: list[str]) -> None:
    import csv

    names = (
        "customer_id", "first_name", "last_name", "email", "phone", "date_of_birth", "location_id", "kyc_status",
        "marketing_consent", "consent_updated_at", "created_at", "updated_at",
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for number, text in enumerate(forms):
            writer.writerow("t" if value is True else value for value in _customer(500 + number, text))
