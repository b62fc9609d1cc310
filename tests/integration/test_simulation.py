"""The simulation on real servers: the example queries, repetition, being killed, moving on, and the reality list."""

from __future__ import annotations

import datetime as dt
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from bson import Decimal128
from confluent_kafka import Consumer, TopicPartition
from pymongo import MongoClient

from tests.conftest import MakeSettings
from warehouse import servers as embedded
from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import ConfigurationError, SourceUnavailable
from warehouse.core.settings import Settings
from warehouse.simulation import advance, fill
from warehouse.simulation.stores.documents import DATABASE, INDEXES
from warehouse.simulation.stores.oltp import TABLES
from warehouse.simulation.stores.stream import PARTITIONS, TOPIC

PAYMENTS, DAYS = 6_000, 45
EMAIL = re.compile(r"[\w.]+@example\.(com|org|net)")
CARD = re.compile(r"\b(?:\d[ ]?){14,15}\d\b")


class Systems:
    """Short ways to look into the three systems of one home."""

    def __init__(self, settings: Settings, endpoints: Endpoints) -> None:
        self.settings = settings
        self.endpoints = endpoints

    def with_settings(self, **overrides: object) -> Settings:
        return self.settings.model_copy(update=overrides)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(str(self.endpoints.postgres_admin_uri)) as connection:
            return connection.execute(statement.encode()).fetchall()

    def execute(self, statement: str) -> None:
        with psycopg.connect(str(self.endpoints.postgres_admin_uri)) as connection:
            connection.execute(statement.encode())

    def documents(self, collection: str, query: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        with MongoClient[dict[str, Any]](str(self.endpoints.mongodb_admin_uri)) as client:
            return list(client[DATABASE][collection].find(query or {}))

    def drop_collection(self, name: str) -> None:
        with MongoClient[dict[str, Any]](str(self.endpoints.mongodb_admin_uri)) as client:
            client[DATABASE].drop_collection(name)

    def messages(self) -> list[tuple[int, int, str, bytes]]:
        """Partition, offset, key and value of everything in the topic, in order of partition and offset."""
        consumer = Consumer({"bootstrap.servers": self.endpoints.kafka_bootstrap, "group.id": "test"})
        found: list[tuple[int, int, str, bytes]] = []
        try:
            for number in range(PARTITIONS):
                _, end = consumer.get_watermark_offsets(TopicPartition(TOPIC, number), timeout=20)
                consumer.assign([TopicPartition(TOPIC, number, 0)])
                position = 0
                while position < end:
                    # `consume` waits for so many or so long: neither may be much.
                    for message in consumer.consume(500, timeout=0.5):
                        assert message.error() is None
                        found.append((number, message.offset(), message.key().decode(), message.value()))
                        position = message.offset() + 1
        finally:
            consumer.close()
        return found

    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(value) for *_, value in self.messages()]

    def fingerprint(self) -> tuple[Any, ...]:
        """Everything in the three systems, as checksums and counts."""
        tables = [
            self.sql(f"select count(*), md5(string_agg(t::text, '|' order by {key})) from public.{table} t")
            for table, key in TABLES.items()
        ]
        collections = [sorted(map(repr, self.documents(name))) for name in INDEXES]
        stream = sorted((key, value) for _, _, key, value in self.messages())
        return tables, [hash(tuple(rows)) for rows in collections], hash(tuple(stream))


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Iterator[Systems]:
    """Empty servers of this module's own."""
    settings = make_settings(tmp_path_factory.mktemp("simulation"))
    try:
        yield Systems(settings, embedded.up(settings))
    except embedded.ServerMissing as error:
        pytest.skip(error.what)
    finally:
        embedded.down(settings)


@pytest.fixture
def empty(systems: Systems) -> Systems:
    """The same servers, with the memory of any earlier fill gone."""
    systems.execute("drop schema if exists simulation cascade")
    return systems


@pytest.fixture(scope="module")
def company(systems: Systems) -> tuple[Systems, Settings]:
    """A company of 6,000 payments over 45 days, and its settings."""
    settings = systems.with_settings(dataset="company", sim_transactions=PAYMENTS, sim_days=DAYS)
    systems.execute("drop schema if exists simulation cascade")
    fill(settings, systems.endpoints)
    return systems, settings


# --- the reality list: what a small company holds (these run first, on the freshly filled company) --------------------


def test_every_system_is_filled_and_counted(company: tuple[Systems, Settings]) -> None:
    systems, _ = company
    for table in TABLES:
        assert systems.sql(f"select count(*) from public.{table}")[0][0] > 0
    simulated = systems.sql("select count(*) from public.transaction where length(transaction_id) > 6")[0][0]
    simulated += sum(len(d["transaction_id"]) > 6 for d in systems.documents("Transactions"))
    # The last minutes' commits are still under way.
    assert PAYMENTS - 5 <= simulated <= PAYMENTS


def test_primary_and_foreign_keys_are_enforced(company: tuple[Systems, Settings]) -> None:
    systems, _ = company
    constraints = dict(
        systems.sql(
            "select contype::text, count(*) from pg_constraint where connamespace = 'public'::regnamespace group by 1"
        )
    )
    assert constraints["p"] == 9
    assert constraints["f"] == 15
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        systems.execute("update public.transaction set merchant_id = 'nobody' where transaction_id = 'TXN001'")


def test_redelivered_events_lie_at_another_offset(company: tuple[Systems, Settings]) -> None:
    places: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)
    for partition, offset, _, value in company[0].messages():
        places[orjson.loads(value)["event_id"]].add((partition, offset))
    assert any(len(found) > 1 for found in places.values())
    assert max(len(found) for found in places.values()) == 2


def test_events_of_a_payment_come_out_of_order(company: tuple[Systems, Settings]) -> None:
    last: dict[str, str] = {}
    overtaken = 0
    for *_, key, value in company[0].messages():
        occurred = orjson.loads(value)["occurred_at"]
        overtaken += occurred < last.get(key, "")
        last[key] = max(occurred, last.get(key, ""))
    assert overtaken > 0


def test_many_rows_share_one_updated_at(company: tuple[Systems, Settings]) -> None:
    shared = company[0].sql("select max(n) from (select count(*) n from public.transaction group by updated_at) t")
    assert shared[0][0] >= 5


def test_duplicates_lie_under_two_ids(company: tuple[Systems, Settings]) -> None:
    for collection in ("customer_feedback", "user_interactions"):
        bodies = Counter(
            repr({key: value for key, value in document.items() if key != "_id"})
            for document in company[0].documents(collection)
        )
        assert max(bodies.values()) == 2, collection


def test_documents_refer_to_customers_that_postgresql_does_not_have_yet(company: tuple[Systems, Settings]) -> None:
    systems, _ = company
    known = {number.removeprefix("CUSTOMER") for (number,) in systems.sql("select customer_id from public.customer")}
    early = {document["customer_id"].removeprefix("CUST") for document in systems.documents("Transactions")} - known
    assert early


def test_rates_are_missing_on_weekends_and_for_some_currencies(company: tuple[Systems, Settings]) -> None:
    systems, _ = company
    rates = systems.documents("currency_exchange_rates")
    assert len({document["date"] for document in rates}) == len(rates)
    assert all(document["date"].weekday() < 5 for document in rates)
    quoted = {code for document in rates for code in document["rates"]} | {"EUR"}
    paid = {code for (code,) in systems.sql("select distinct currency_code from public.transaction")}
    assert {"KWD", "RUB"} <= paid - quoted


def test_currencies_of_every_scale_are_paid_in(company: tuple[Systems, Settings]) -> None:
    scales = company[0].sql(
        "select distinct minor_unit from public.transaction join public.currency using (currency_code) order by 1"
    )
    assert scales == [(0,), (2,), (3,), (4,)]


def test_one_field_holds_several_types(company: tuple[Systems, Settings]) -> None:
    types = {type(document["amount"]) for document in company[0].documents("Transactions")}
    assert types == {float, int, str, Decimal128}


def test_free_text_holds_what_people_write(company: tuple[Systems, Settings]) -> None:
    comments = [document["comment"] for document in company[0].documents("customer_feedback")]
    assert any("\x00" in comment for comment in comments)
    assert any(max(comment, default="") > "\U0001f000" for comment in comments)
    assert any(EMAIL.search(comment) for comment in comments)
    assert any(CARD.search(comment) for comment in comments)
    assert sum(len(comment.encode()) > 900_000 for comment in comments) == 1


def test_stack_traces_hold_personal_data(company: tuple[Systems, Settings]) -> None:
    messages = [document["message"] for document in company[0].documents("error_logs")]
    assert any("Traceback" in message and CARD.search(message) and EMAIL.search(message) for message in messages)


def test_forbidden_and_odd_data_is_there(company: tuple[Systems, Settings]) -> None:
    systems, _ = company
    assert any("cvv" in document for document in systems.documents("Transactions"))
    assert any("cvv" in document["context"] for document in systems.documents("error_logs"))
    attributes = [event["attributes"] for event in systems.events()]
    assert any("cvv" in found for found in attributes)
    assert any("\x00" in found.get("note", "") for found in attributes)


def test_fraud_is_there_and_seen(company: tuple[Systems, Settings]) -> None:
    systems, _ = company
    assert any(document["status"] == "fraudulent" for document in systems.documents("Transactions"))
    shared = systems.sql(
        "select max(n) from (select count(distinct customer_id) n from public.transaction group by device_id) t"
    )
    assert shared[0][0] >= 3
    burst = systems.sql(
        "select max(n) from (select count(*) n from public.transaction"
        " group by device_id, merchant_id, date_trunc('day', created_at)) t"
    )
    assert burst[0][0] >= 5


def test_people_and_shops_are_the_same_everywhere(company: tuple[Systems, Settings]) -> None:
    systems, _ = company
    names = dict(systems.sql("select merchant_id, trade_name from public.merchant"))
    documents = systems.documents("merchants")
    assert len(documents) == len(names)
    for document in documents:
        number = document["merchant_id"].removeprefix("MERCH")
        assert names[f"MERCHANT{number}"] == document["profile"]["trade_name"]


# --- repetition, other companies, moving on ---------------------------------------------------------------------------


def test_a_filled_company_is_left_alone(company: tuple[Systems, Settings]) -> None:
    systems, settings = company
    before = systems.fingerprint()
    report = fill(settings, systems.endpoints)
    assert not report.changed
    assert report.rows == {}
    assert report.current_date == settings.sim_start + dt.timedelta(days=DAYS)
    assert systems.fingerprint() == before


def test_another_company_is_refused(company: tuple[Systems, Settings]) -> None:
    systems, settings = company
    with pytest.raises(ConfigurationError, match="hold the company data set"):
        fill(settings.model_copy(update={"sim_seed": 1}), systems.endpoints)


def test_advancing_adds_changes_and_deletes(company: tuple[Systems, Settings]) -> None:
    systems, settings = company
    before = {table: dict(systems.sql(f"select {key}, t::text from public.{table} t")) for table, key in TABLES.items()}
    messages = len(systems.messages())
    feedback = {document["_id"] for document in systems.documents("customer_feedback")}
    report = advance(settings, systems.endpoints, 6)
    assert report.changed
    assert report.current_date == settings.sim_start + dt.timedelta(days=DAYS + 6)
    after = {table: dict(systems.sql(f"select {key}, t::text from public.{table} t")) for table, key in TABLES.items()}
    for table in ("customer", "device", "payment_method", "product", "transaction"):
        assert after[table].keys() - before[table].keys(), table
        assert any(after[table].get(key, row) != row for key, row in before[table].items()), table
    for table in ("device", "payment_method"):
        assert before[table].keys() - after[table].keys(), table
    assert len(systems.messages()) > messages
    assert feedback - {document["_id"] for document in systems.documents("customer_feedback")}
    # Changes that became visible only now carry a time from before the old present.
    late = systems.sql(
        f"select device_id, t::text from public.device t where updated_at = '{settings.sim_start}'::timestamptz"
        f" + interval '{DAYS} days' - interval '2 minutes'"
    )
    assert late
    assert all(before["device"].get(key) != row for key, row in late)


def test_refunds_and_disputes_of_older_payments_arrive_late(company: tuple[Systems, Settings]) -> None:
    systems, _ = company
    captured: dict[str, str] = {}
    opened: dict[str, str] = {}
    for event in systems.events():
        if event["event_type"] == "payment.captured":
            captured[event["transaction_id"]] = event["occurred_at"]
        if event["event_type"] == "dispute.opened":
            opened[event["transaction_id"]] = event["occurred_at"]
    assert opened.keys() <= captured.keys()
    delays = [
        dt.datetime.fromisoformat(moment) - dt.datetime.fromisoformat(captured[key]) for key, moment in opened.items()
    ]
    assert max(delays) > dt.timedelta(days=20)


def test_the_reference_rows_are_part_of_the_company(company: tuple[Systems, Settings]) -> None:
    systems, _ = company
    assert systems.sql("select amount from public.transaction where transaction_id = 'TXN001'") != []
    assert len(systems.documents("Transactions", {"transaction_id": "TX1005"})) == 1


# --- from here on the servers are emptied again and again -------------------------------------------------------------


def test_the_example_queries_give_exactly_the_rows_of_the_design(empty: Systems) -> None:
    report = fill(empty.with_settings(dataset="reference"), empty.endpoints)
    assert report.changed
    found = empty.sql(
        """
        SELECT transaction_id, merchant_id, customer_id, amount, tax
        FROM OLTP_STRIP_PROJECT.PUBLIC.Transaction
        WHERE amount > 100;
        """
    )
    assert [tuple(map(str, row)) for row in sorted(found)] == [
        ("TXN001", "MERCHANT001", "CUSTOMER001", "120.5000", "10.0000"),
        ("TXN003", "MERCHANT003", "CUSTOMER003", "150.0000", "12.5000"),
    ]
    documents = empty.documents("Transactions", {"amount": {"$gt": 500}, "status": "fraudulent"})
    [document] = documents
    assert [document[key] for key in ("transaction_id", "customer_id", "merchant_id", "amount", "fraud_score")] == [
        "TX1005",
        "CUST005",
        "MERCH003",
        890.5,
        0.75,
    ]
    assert len(empty.documents("Transactions")) == 4


def test_the_reference_data_set_does_not_move(empty: Systems) -> None:
    settings = empty.with_settings(dataset="reference")
    fill(settings, empty.endpoints)
    with pytest.raises(ConfigurationError, match="does not move"):
        advance(settings, empty.endpoints, 1)


def test_there_must_be_a_company_before_it_can_move(empty: Systems) -> None:
    with pytest.raises(ConfigurationError, match="no company"):
        advance(empty.with_settings(dataset="company"), empty.endpoints, 1)


@pytest.mark.parametrize("days", [0, -3])
def test_a_company_moves_forward_only(empty: Systems, days: int) -> None:
    with pytest.raises(ConfigurationError, match="one day or more"):
        advance(empty.with_settings(dataset="company"), empty.endpoints, days)


def test_a_lost_collection_is_filled_again(empty: Systems) -> None:
    settings = empty.with_settings(dataset="reference")
    fill(settings, empty.endpoints)
    empty.drop_collection("products")
    assert fill(settings, empty.endpoints).changed
    assert empty.documents("products")


def test_a_server_that_does_not_answer_is_one_clear_error(empty: Systems) -> None:
    nobody = Endpoints(None, None, None, postgres_admin_uri="postgresql://postgres@127.0.0.1:1/nothing")
    with pytest.raises(SourceUnavailable, match="PostgreSQL cannot be filled"):
        fill(empty.with_settings(dataset="reference"), nobody)


def test_systems_that_are_not_ours_are_not_touched(empty: Systems) -> None:
    report = fill(empty.settings, Endpoints("postgresql://yours", None, None))
    assert not report.changed
    assert "not ours" in report.note


KILLED_RUN = """
import os, sys
from warehouse.core.endpoints import Endpoints
from warehouse.core.settings import load_settings
from warehouse.simulation import advance, fill

postgres, mongodb, kafka, home = (os.environ[name] for name in ("T_POSTGRES", "T_MONGODB", "T_KAFKA", "T_HOME"))
settings = load_settings(
    warehouse_home=home, dataset="company", sim_transactions=2500, sim_days=30,
    postgres_uri=None, mongodb_uri=None, kafka_bootstrap=None,
)
endpoints = Endpoints(postgres, mongodb, kafka, postgres, mongodb)
tell = lambda line: print(line, flush=True)
if sys.argv[1] == "fill":
    fill(settings, endpoints, tell)
else:
    advance(settings, endpoints, 4, tell)
"""


def killed_at(systems: Systems, what: str, line: str) -> None:
    """Run `what` in a process of its own and kill it with SIGKILL when it says `line`."""
    environment = os.environ | {
        "T_POSTGRES": str(systems.endpoints.postgres_admin_uri),
        "T_MONGODB": str(systems.endpoints.mongodb_admin_uri),
        "T_KAFKA": str(systems.endpoints.kafka_bootstrap),
        "T_HOME": str(systems.settings.warehouse_home),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN, what],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    for said in process.stdout:
        if line in said:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait(timeout=60) == -signal.SIGKILL
    process.stdout.close()


def small(systems: Systems) -> Settings:
    return systems.with_settings(dataset="company", sim_transactions=2_500, sim_days=30)


def fill_when_free(systems: Systems) -> bool:
    """Fill as soon as PostgreSQL has noticed that the killed process is gone; whether anything was written."""
    from warehouse.core.errors import AlreadyRunning

    deadline = time.monotonic() + 30
    while True:
        try:
            return fill(small(systems), systems.endpoints).changed
        except AlreadyRunning:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_killed_fill_is_emptied_and_filled_again(empty: Systems) -> None:
    killed_at(empty, "fill", "payments")
    assert empty.sql("select status from simulation.state") == [("filling",)]
    assert fill_when_free(empty)
    after_the_kill = empty.fingerprint()
    empty.execute("drop schema simulation cascade")
    fill(small(empty), empty.endpoints)
    assert empty.fingerprint() == after_the_kill


def test_a_killed_advance_is_completed_by_the_next_fill(empty: Systems) -> None:
    fill(small(empty), empty.endpoints)
    killed_at(empty, "advance", "older payments")
    assert empty.sql("select status, current_day, target_day from simulation.state") == [("advancing", 30, 34)]
    assert fill_when_free(empty)
    assert empty.sql("select status, current_day from simulation.state") == [("ready", 34)]
    tables, collections, _ = empty.fingerprint()
    distinct = {orjson.dumps(event) for event in empty.events()}

    empty.execute("drop schema simulation cascade")
    fill(small(empty), empty.endpoints)
    advance(small(empty), empty.endpoints, 4)
    undisturbed_tables, undisturbed_collections, _ = empty.fingerprint()
    assert tables == undisturbed_tables
    assert collections == undisturbed_collections
    # Events of the killed run may be there twice: that is what event ids are for.
    assert distinct == {orjson.dumps(event) for event in empty.events()}
