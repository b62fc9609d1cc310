"""The embedded servers themselves: started, adopted, killed, replaced, stopped."""

from __future__ import annotations

import json
import os
import shutil
import socketserver
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from psycopg import errors
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from warehouse import servers as embedded
from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import SourceUnavailable
from warehouse.core.paths import Home
from warehouse.core.settings import PROJECT_ROOT, Settings
from warehouse.servers import base, process
from warehouse.servers.kafka import Kafka

MakeSettings = Callable[..., Settings]
Running = tuple[Settings, Endpoints]

NAMES = ("postgres", "mongodb", "kafka")
PROGRAMS = {"postgres": "postgres", "mongodb": "mongod", "kafka": "noida-db"}
TOPIC = "servers.written"
ADDRESSES = {"postgres": "postgres_uri", "mongodb": "mongodb_uri", "kafka": "kafka_bootstrap"}
ELSEWHERE = {
    "postgres_uri": "postgresql://somebody@127.0.0.1:1/db",
    "mongodb_uri": "mongodb://127.0.0.1:1/db",
    "kafka_bootstrap": "127.0.0.1:1",
}


def pids(settings: Settings) -> dict[str, int | None]:
    """The recorded process of every embedded server."""
    records = {name: Home.of(settings).servers / name / "state.json" for name in NAMES}
    return {name: json.loads(path.read_text())["pid"] for name, path in records.items() if path.exists()}


def data_of(settings: Settings, name: str) -> Path:
    return Home.of(settings).servers / name / "data"


def kill(pid: int) -> None:
    victim = psutil.Process(pid)
    victim.kill()
    until(lambda: not process.alive(victim))


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def postgres_write(endpoints: Endpoints, value: int) -> None:
    assert endpoints.postgres_admin_uri is not None
    with psycopg.connect(endpoints.postgres_admin_uri) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS written (value bigint)")
        connection.execute("INSERT INTO written VALUES (%s)", [value])


def postgres_read(endpoints: Endpoints) -> list[int]:
    assert endpoints.postgres_uri is not None
    with psycopg.connect(endpoints.postgres_uri) as connection:
        return [row[0] for row in connection.execute("SELECT value FROM written ORDER BY value")]


def mongodb_write(endpoints: Endpoints, value: int) -> None:
    with MongoClient[dict[str, Any]](endpoints.mongodb_admin_uri) as client:
        client.get_default_database()["written"].insert_one({"value": value})


def mongodb_read(endpoints: Endpoints) -> list[int]:
    with MongoClient[dict[str, Any]](endpoints.mongodb_uri) as client:
        return [document["value"] for document in client["stripe_nosql"]["written"].find().sort("value")]


def kafka_write(endpoints: Endpoints, value: int) -> None:
    assert endpoints.kafka_bootstrap is not None
    config: dict[str, str | int | float | bool] = {
        "bootstrap.servers": endpoints.kafka_bootstrap,
        "log_level": 0,
    }
    admin = AdminClient(config)
    if TOPIC not in admin.list_topics(timeout=10).topics:
        for created in admin.create_topics([NewTopic(TOPIC, 1, 1)]).values():
            created.result(10)
    producer = Producer(config)
    producer.produce(TOPIC, str(value))
    assert producer.flush(10) == 0


def kafka_read(endpoints: Endpoints) -> list[int]:
    consumer = Consumer({"bootstrap.servers": endpoints.kafka_bootstrap, "group.id": "test", "log_level": 0})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(TOPIC, 0), timeout=10)
        consumer.assign([TopicPartition(TOPIC, 0, 0)])
        messages = consumer.consume(end, timeout=10) if end else []
        return sorted(int(message.value() or b"") for message in messages)
    finally:
        consumer.close()


WRITE = {"postgres": postgres_write, "mongodb": mongodb_write, "kafka": kafka_write}
READ = {"postgres": postgres_read, "mongodb": mongodb_read, "kafka": kafka_read}

CHILD = """
import json, sys, time
from warehouse import servers
from warehouse.core.settings import load_settings
from warehouse.servers.base import EmbeddedServer

settings, moment = load_settings(**json.loads(sys.argv[1])), sys.argv[2]
if moment == "before the record":
    def stop_here(self, state, running):
        print("here", flush=True)
        time.sleep(600)
    EmbeddedServer._remember = stop_here
if moment == "before the set-up":
    def stop_here(self, state):
        print("here", flush=True)
        time.sleep(600)
    for kind in EmbeddedServer.__subclasses__():
        kind.provision = stop_here
servers.up(settings)
if moment == "after all":
    print("here", flush=True)
    time.sleep(600)
"""


def another_up(settings: Settings, moment: str = "") -> subprocess.Popen[str]:
    """A process of its own that calls `up`; it says "here" and waits to be killed at that moment."""
    key = settings.dbt_env_secret_warehouse_key
    assert key is not None
    values = {
        "warehouse_home": str(settings.warehouse_home),
        "dbt_env_secret_warehouse_key": key.get_secret_value(),
        "postgres_uri": settings.postgres_uri,
        "mongodb_uri": settings.mongodb_uri,
        "kafka_bootstrap": settings.kafka_bootstrap,
    }
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(values), moment],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_at(moment: str, settings: Settings) -> None:
    """Have another process call `up`, and SIGKILL it at this moment."""
    with another_up(settings, moment) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "here\n"
        finally:
            child.kill()


@contextmanager
def taken(port: int) -> Iterator[None]:
    """Somebody else on this port, who hangs up on every caller."""

    class Taker(socketserver.TCPServer):
        allow_reuse_address = True

    with Taker(("127.0.0.1", port), socketserver.BaseRequestHandler) as taker:
        threading.Thread(target=taker.serve_forever, args=[0.05], daemon=True).start()
        yield
        taker.shutdown()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Iterator[Settings]:
    """A home of this module, whose servers may be killed."""
    settings = make_settings(tmp_path_factory.mktemp("killed"))
    try:
        embedded.up(settings)
    except embedded.ServerMissing as error:
        pytest.skip(error.what)
    yield settings
    embedded.down(settings)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_can_be_read(name: str, servers: Running) -> None:
    _, endpoints = servers
    value = time.time_ns()
    WRITE[name](endpoints, value)
    assert value in READ[name](endpoints)


def test_all_are_healthy_and_say_so(servers: Running) -> None:
    settings, _ = servers
    found = {row.name: row for row in embedded.status(settings)}
    assert tuple(found) == NAMES
    for row in found.values():
        assert (row.kind, row.running, row.detail) == ("embedded", True, "healthy")
        assert row.port
        assert row.pid
        assert row.data_bytes
    assert (found["postgres"].version or "").startswith("17.")
    assert (found["mongodb"].version or "").startswith("6.")


def test_nothing_listens_off_loopback(servers: Running) -> None:
    settings, _ = servers
    for row in embedded.status(settings):
        parent = psutil.Process(row.pid)
        listening = [
            connection.laddr
            for one in (parent, *parent.children(recursive=True))
            for connection in one.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert row.port in {address.port for address in listening}
        assert {address.ip for address in listening} == {"127.0.0.1"}


def test_records_keys_and_data_are_for_the_owner_alone(servers: Running) -> None:
    settings, _ = servers
    root = Home.of(settings).servers
    private = [*root.glob("*/state.json"), *root.glob("*/log/server.log"), root / "mongodb" / "replica-set.key"]
    assert len(private) == 7
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for path in root.glob("*/data"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path


def test_no_password_is_shown_by_any_process(servers: Running) -> None:
    settings, _ = servers
    secrets = [
        secret
        for path in Home.of(settings).servers.glob("*/state.json")
        for secret in json.loads(path.read_text())["secrets"].values()
    ]
    assert len(set(secrets)) == 4
    shown = [" ".join(psutil.Process(pid).cmdline()) for pid in pids(settings).values()]
    logs = [path.read_text() for path in Home.of(settings).servers.glob("*/log/*")]
    assert not [secret for secret in secrets for text in (*shown, *logs) if secret in text]


def test_a_wrong_password_is_refused(servers: Running) -> None:
    _, endpoints = servers
    assert endpoints.postgres_uri is not None
    assert endpoints.mongodb_uri is not None
    for address in (endpoints.postgres_uri, endpoints.postgres_admin_uri or ""):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(address, password="wrong")
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(address, password="", passfile=os.devnull)
    with (
        MongoClient[dict[str, Any]](endpoints.mongodb_uri, password="wrong") as client,
        pytest.raises(OperationFailure, match="Authentication failed"),
    ):
        client.admin.command("ping")
    host = endpoints.mongodb_uri.partition("@")[2].partition("/")[0]
    with MongoClient[dict[str, Any]](f"mongodb://{host}/?directConnection=true") as client:
        with pytest.raises(OperationFailure, match="requires authentication"):
            client["stripe_nosql"]["written"].find_one()
        with pytest.raises(OperationFailure, match="requires authentication"):
            client.admin.command("createUser", "intruder", pwd="x", roles=["root"])


def test_the_reader_of_postgresql_reads_all_and_writes_nothing(servers: Running) -> None:
    _, endpoints = servers
    assert endpoints.postgres_uri is not None
    assert endpoints.postgres_admin_uri is not None
    with psycopg.connect(endpoints.postgres_admin_uri) as admin:
        admin.execute("DROP SCHEMA IF EXISTS apart CASCADE")
        admin.execute("CREATE SCHEMA apart CREATE TABLE t (value int)")
    with psycopg.connect(endpoints.postgres_uri, autocommit=True) as reader:
        assert reader.info.dbname == "oltp_strip_project"
        assert reader.execute("SELECT count(*) FROM apart.t").fetchone() == (0,)
        with pytest.raises(errors.ReadOnlySqlTransaction):
            reader.execute("INSERT INTO apart.t VALUES (1)")
        reader.execute("SET default_transaction_read_only = off")  # anybody may; the rights are what counts
        for statement in (
            "INSERT INTO apart.t VALUES (1)",
            "CREATE TABLE public.mine (value int)",
            "CREATE TEMPORARY TABLE mine (value int)",
            "CREATE SCHEMA mine",
            "ALTER ROLE warehouse_reader SUPERUSER",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                reader.execute(statement)
    with psycopg.connect(endpoints.postgres_admin_uri) as admin:
        assert admin.execute("SHOW wal_level").fetchone() == ("logical",)
        assert admin.execute("SHOW data_checksums").fetchone() == ("on",)
        admin.execute("DROP SCHEMA apart CASCADE")


def test_the_reader_of_mongodb_reads_one_database_and_writes_nothing(servers: Running) -> None:
    _, endpoints = servers
    mongodb_write(endpoints, 2)
    with MongoClient[dict[str, Any]](endpoints.mongodb_uri) as reader:
        database = reader["stripe_nosql"]
        assert database["written"].find_one() is not None
        with database.watch():  # change streams work: it is a replica set with a primary
            pass
        with pytest.raises(OperationFailure, match="not authorized"):
            database["written"].insert_one({})
        with pytest.raises(OperationFailure, match="not authorized"):
            reader["admin"]["system.users"].find_one()


def test_an_error_in_postgresql_leaves_no_value_in_its_log(servers: Running) -> None:
    settings, endpoints = servers
    assert endpoints.postgres_admin_uri is not None
    value = "somebody@example.test"
    with (
        psycopg.connect(endpoints.postgres_admin_uri) as connection,
        pytest.raises(errors.InvalidTextRepresentation, match=value),
    ):
        connection.execute(f"SELECT '{value}'::int")
    assert value not in (Home.of(settings).servers / "postgres" / "log" / "server.log").read_text()


def test_a_second_up_adopts_what_runs(home: Settings) -> None:
    before, endpoints = pids(home), embedded.resolve(home)
    said: list[str] = []
    assert embedded.up(home, said.append) == endpoints
    assert pids(home) == before
    assert [line.partition(":")[0] for line in said] == ["PostgreSQL", "MongoDB", "Kafka"]
    assert all("already running" in line for line in said)


def test_what_the_user_has_is_not_started(tmp_path: Path, make_settings: MakeSettings) -> None:
    settings = make_settings(tmp_path, **ELSEWHERE | {"kafka_bootstrap": None})
    try:
        endpoints = embedded.up(settings)
        assert endpoints.postgres_uri == ELSEWHERE["postgres_uri"]
        assert endpoints.postgres_admin_uri is None
        assert endpoints.kafka_bootstrap is not None
        assert list(pids(settings)) == ["kafka"]
    finally:
        assert embedded.down(settings) == ["kafka"]


def test_servers_outlive_the_killed_process_that_started_them(tmp_path: Path, make_settings: MakeSettings) -> None:
    settings = make_settings(tmp_path)
    try:
        kill_at("after all", settings)
        started = pids(settings)
        embedded.up(settings)
        assert pids(settings) == started
        assert all(row.running for row in embedded.status(settings))
    finally:
        assert embedded.down(settings) == list(NAMES)


@pytest.mark.parametrize("moment", ["before the record", "before the set-up"])
@pytest.mark.parametrize("name", NAMES)
def test_a_start_that_was_cut_off_is_found_and_finished(
    name: str, moment: str, tmp_path: Path, make_settings: MakeSettings
) -> None:
    settings = make_settings(tmp_path, **ELSEWHERE | {ADDRESSES[name]: None})
    try:
        kill_at(moment, settings)
        (started, *_) = process.find(PROGRAMS[name], data_of(settings, name))
        endpoints = embedded.up(settings)
        assert pids(settings) == {name: started.pid}
        WRITE[name](endpoints, 1)
        assert READ[name](endpoints) == [1]
    finally:
        assert embedded.down(settings) == [name]
    assert not process.find(PROGRAMS[name], data_of(settings, name))


def test_two_at_once_start_one_server_of_each_kind(tmp_path: Path, make_settings: MakeSettings) -> None:
    settings = make_settings(tmp_path)
    try:
        with another_up(settings) as first, another_up(settings) as second:
            assert (first.wait(60), second.wait(60)) == (0, 0)
        for name in NAMES:
            listening = [
                one
                for one in process.find(PROGRAMS[name], data_of(settings, name))
                if str(data_of(settings, name)) in one.cmdline()
            ]
            assert [one.pid for one in listening] == [pids(settings)[name]]
    finally:
        assert embedded.down(settings) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_server_is_replaced_and_its_data_kept(name: str, home: Settings) -> None:
    endpoints = embedded.up(home)
    value = time.time_ns()
    WRITE[name](endpoints, value)
    if name == "kafka":  # it writes to disk about a second later
        snapshot = data_of(home, name) / "kafka.json"
        until(lambda: snapshot.exists() and snapshot.stat().st_mtime_ns > value)
    before = pids(home)
    pid = before[name]
    assert pid is not None
    kill(pid)
    with pytest.raises(SourceUnavailable, match="is not running"):
        embedded.resolve(home)
    assert embedded.up(home) == endpoints  # the same port and passwords too
    after = pids(home)
    assert {other for other in NAMES if after[other] != before[other]} == {name}
    assert value in READ[name](endpoints)


def test_postgresql_starts_although_its_old_number_is_another_process_now(home: Settings) -> None:
    embedded.up(home)
    pid, another = pids(home)["postgres"], pids(home)["mongodb"]
    assert pid is not None
    lock = data_of(home, "postgres") / "postmaster.pid"
    left = lock.read_text().splitlines()
    kill(pid)
    lock.write_text("\n".join([str(another), *left[1:]]) + "\n")
    embedded.up(home)
    assert embedded.status(home)[0].running


def test_sessions_that_survive_a_killed_postgresql_are_ended(home: Settings) -> None:
    endpoints = embedded.up(home)
    pid = pids(home)["postgres"]
    assert pid is not None
    assert endpoints.postgres_admin_uri is not None
    with psycopg.connect(endpoints.postgres_admin_uri) as busy:
        backend = psutil.Process(busy.info.backend_pid)
        backend.suspend()  # as one that is deep in a long query does not see that its parent is gone
        kill(pid)
        embedded.up(home)
        assert not process.alive(backend)
        assert embedded.status(home)[0].running
        busy.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_server_that_hangs_is_replaced(name: str, home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_ADOPT_SECONDS", 0.5)
    monkeypatch.setattr(base.EmbeddedServer, "unwell_seconds", 0.5)
    monkeypatch.setattr(Kafka, "unwell_seconds", 0.5)
    endpoints = embedded.up(home)
    before = pids(home)[name]
    psutil.Process(before).suspend()
    said: list[str] = []
    assert embedded.up(home, said.append) == endpoints
    assert [line for line in said if "does not answer" in line]
    assert pids(home)[name] != before
    assert not psutil.pid_exists(before or 0)
    assert all(row.running for row in embedded.status(home))


@pytest.mark.parametrize("name", NAMES)
def test_a_port_that_was_taken_meanwhile_is_replaced_by_another(name: str, home: Settings) -> None:
    endpoints = embedded.up(home)
    WRITE[name](endpoints, 7)
    port = next(row.port for row in embedded.status(home) if row.name == name)
    assert port
    embedded.down(home)
    with taken(port):
        moved = embedded.up(home)
    assert moved != endpoints
    assert 7 in READ[name](moved)
    assert all(row.running for row in embedded.status(home))


def test_where_user_namespaces_are_forbidden_postgresql_runs_as_nobody(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root needs another account for PostgreSQL")
    # not below pytest's own folder, which only root may enter
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        settings = make_settings(Path(folder), **ELSEWHERE | {"postgres_uri": None})
        endpoints = Endpoints(None, None, None)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(shutil, "which", lambda name: None)
                endpoints = embedded.up(settings)
                assert psutil.Process(pids(settings)["postgres"]).username() == "nobody"
                postgres_write(endpoints, 1)
                embedded.down(settings)
            assert embedded.up(settings) == endpoints  # and back again, when they are allowed
            assert postgres_read(endpoints) == [1]
        except embedded.ServerMissing as error:
            pytest.skip(error.what)  # `nobody` cannot enter the folder of this Python
        finally:
            embedded.down(settings)


def test_down_stops_all_cleanly_once(home: Settings) -> None:
    embedded.up(home)
    found = [psutil.Process(pid) for pid in pids(home).values()]
    assert embedded.down(home) == list(NAMES)
    assert not [one for one in found if process.alive(one)]
    assert not (data_of(home, "postgres") / "postmaster.pid").exists()
    assert (data_of(home, "mongodb") / "mongod.lock").stat().st_size == 0
    assert [(row.running, row.detail, row.pid) for row in embedded.status(home)] == [(False, "stopped", None)] * 3
    assert embedded.down(home) == []


def test_a_server_that_cannot_start_says_where_to_look(home: Settings, tmp_path: Path) -> None:
    embedded.down(home)
    broken = data_of(home, "postgres") / "global" / "pg_control"
    shutil.copy(broken, tmp_path / "pg_control")
    broken.write_bytes(b"")
    try:
        with pytest.raises(SourceUnavailable, match="PostgreSQL does not start") as caught:
            embedded.up(home)
        assert "server.log" in caught.value.todo
    finally:
        shutil.copy(tmp_path / "pg_control", broken)
    embedded.up(home)
    assert embedded.status(home)[0].running
