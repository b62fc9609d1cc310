"""In transit and at rest: what must not open does not open, and what must not be trusted is not."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import duckdb
import psycopg
import pymongo
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from ingestion.lake import parts_sql, write_part
from tests.conftest import MakeSettings
from tests.security.tls import Seen, authority, server_files, tls_server
from warehouse.core.database import LAKE_KEY_NAME, attach, blank_connection
from warehouse.core.errors import ConfigurationError
from warehouse.core.kafka import client_config
from warehouse.core.settings import Settings, load_settings

SECRET = "kanari-geheimnis-7c19e0d2b8"
ROWS = 200_000


def fresh_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


@pytest.fixture
def settings(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    """A home with keys."""
    return make_settings(tmp_path / "home")


def database(settings: Settings, path: Path, key: str) -> None:
    connection = blank_connection(settings)
    attach(connection, path, "db", key)
    connection.execute(f"create table db.t as select i, '{SECRET}' || i as v from range({ROWS}) as r(i)")
    connection.close()


def read(settings: Settings, path: Path, key: str) -> Any:
    connection = blank_connection(settings)
    try:
        attach(connection, path, "db", key, read_only=True)
        return connection.execute("select count(*), max(v), sum(hash(v)) from db.t").fetchone()
    finally:
        connection.close()


# --- at rest ---------------------------------------------------------------------------------------------------------


def test_a_database_holds_no_plain_text_and_opens_with_its_key_alone(settings: Settings, tmp_path: Path) -> None:
    path, key, other = tmp_path / "x.duckdb", fresh_key(), fresh_key()
    database(settings, path, key)
    assert SECRET.encode() not in path.read_bytes()
    assert read(settings, path, key)[0] == ROWS
    with pytest.raises(ConfigurationError, match="does not open with this key") as refused:
        read(settings, path, other)
    assert other not in str(refused.value)
    assert key not in str(refused.value)


def test_a_flipped_bit_of_a_database_is_found(settings: Settings, tmp_path: Path) -> None:
    path, key = tmp_path / "x.duckdb", fresh_key()
    database(settings, path, key)
    good, whole = read(settings, path, key), bytearray(path.read_bytes())
    found = 0
    places = range(len(whole) // 7, len(whole), len(whole) // 7)
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        try:
            assert read(settings, path, key) == good  # the bit lay in a block that nothing uses
        except (duckdb.Error, ConfigurationError):
            found += 1
    assert found >= len(places) - 2


def test_a_part_of_the_lake(settings: Settings, tmp_path: Path) -> None:
    part = tmp_path / "part.parquet"
    keys = {LAKE_KEY_NAME: fresh_key(), "other": fresh_key()}
    connection = blank_connection(settings)
    for name, key in keys.items():
        connection.execute(f"pragma add_parquet_key('{name}', '{key}')")
    write_part(connection, f"select i, '{SECRET}' || i as v from range(1000) as r(i)", part)
    assert SECRET.encode() not in part.read_bytes()
    assert connection.execute(f"select count(*) from {parts_sql([part])}").fetchone() == (1000,)
    with pytest.raises(duckdb.Error):
        connection.execute(f"select * from {parts_sql([part], 'other')}").fetchall()
    with pytest.raises(duckdb.Error):
        connection.execute(f"select * from '{part}'").fetchall()
    query = f"select sum(hash(v)), sum(i) from {parts_sql([part])}"
    good, whole, found = connection.execute(query).fetchone(), bytearray(part.read_bytes()), 0
    places = range(8, len(whole), len(whole) // 50)
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1
        part.write_bytes(flipped)
        try:
            assert connection.execute(query).fetchone() == good  # an index that this query does without; the seal tells
        except duckdb.Error:
            found += 1
    assert found > len(places) * 0.8


def spilled(connection: duckdb.DuckDBPyConnection, folder: Path) -> bytes:
    """What lies in the spill folder while a sort that does not fit is being read."""
    connection.execute("set memory_limit = '60MB'")
    connection.execute("set threads = 1")
    connection.execute("set preserve_insertion_order = false")
    result = connection.execute(
        f"select '{SECRET}' || i || repeat('x', 200) as v from range(1500000) as r(i) order by hash(i)"
    )
    result.fetchone()
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_spill_files_are_encrypted(settings: Settings, tmp_path: Path) -> None:
    connection = blank_connection(settings)
    content = spilled(connection, settings.warehouse_home / "spill")
    assert len(content) > 2**20
    assert SECRET.encode() not in content
    connection.close()
    # the same without the setting: plain text, or this test would prove nothing
    plain = duckdb.connect(config={"temp_directory": str(tmp_path / "plain")})
    assert SECRET.encode() in spilled(plain, tmp_path / "plain")


# --- in transit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"postgres_uri": "postgresql://u:p@db.example.org/x"},
        {"postgres_uri": "postgresql://u:p@db.example.org/x?sslmode=require"},
        {"postgres_uri": "postgresql://u:p@db.example.org/x?sslmode=verify-ca"},
        {"postgres_uri": "postgresql://u:p@127.0.0.1,db.example.org/x"},
        {"postgres_uri": "postgresql://u:p@127.0.0.1/x?host=db.example.org"},
        {"postgres_uri": "postgresql://u:p@127.0.0.1/x?hostaddr=192.0.2.1"},
        {"mongodb_uri": "mongodb://u:p@db.example.org/x"},
        {"mongodb_uri": "mongodb://u:p@db.example.org/x?tls=false"},
        {"mongodb_uri": "mongodb+srv://u:p@db.example.org/x?tls=false"},
        {"mongodb_uri": "mongodb://u:p@db.example.org/x?tls=true&tlsInsecure=true"},
        {"mongodb_uri": "mongodb://u:p@db.example.org/x?tls=true&tlsAllowInvalidCertificates=true"},
        {"mongodb_uri": "mongodb://u:p@db.example.org/x?tls=true&tlsAllowInvalidHostnames=true"},
        {"kafka_bootstrap": "broker.example.org:9092"},
        {"kafka_bootstrap": "127.0.0.1:9092,broker.example.org:9092"},
        {"lake_endpoint": "http://store.example.org"},
        {"snowflake_url": "http://account.example.org"},
        {"alert_webhook": "http://hooks.example.org/x"},
        {"alert_syslog": "udp://siem.example.org"},
    ],
    ids=lambda values: " ".join(map(str, values.values()))[:80],
)
def test_a_plain_address_off_this_machine_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(**values)
    assert "u:p" not in str(refused.value)


def to_postgres(host: str, port: int, authority_file: Path) -> None:
    psycopg.connect(
        f"postgresql://u:p@{host}:{port}/x?sslmode=verify-full&sslrootcert={authority_file}&connect_timeout=3"
    )


def to_postgres_scanner(host: str, port: int, authority_file: Path) -> None:
    settings = load_settings(postgres_uri=None, mongodb_uri=None, kafka_bootstrap=None)
    connection = blank_connection(settings.model_copy(update={"warehouse_home": authority_file.parent}), postgres=True)
    uri = f"postgresql://u:p@{host}:{port}/x?sslmode=verify-full&sslrootcert={authority_file}&connect_timeout=3"
    connection.execute(f"attach '{uri}' as pg (type postgres)")


def to_mongodb(host: str, port: int, authority_file: Path) -> None:
    with pymongo.MongoClient(
        f"mongodb://{host}:{port}/?tls=true&tlsCAFile={authority_file}", serverSelectionTimeoutMS=2500
    ) as client:
        client.admin.command("ping")


def to_kafka(host: str, port: int, authority_file: Path) -> None:
    settings = load_settings(
        kafka_bootstrap=f"{host}:{port}", kafka_security="ssl", kafka_ca_file=authority_file,
        postgres_uri=None, mongodb_uri=None,
    )  # fmt: skip
    AdminClient(client_config(settings, f"{host}:{port}") | {"socket.timeout.ms": 2500}).list_topics(timeout=2.5)


def to_s3(host: str, port: int, authority_file: Path) -> None:
    client = boto3.client(
        "s3", endpoint_url=f"https://{host}:{port}", verify=str(authority_file), region_name="us-east-1",
        aws_access_key_id="a", aws_secret_access_key="b",
        config=boto3.session.Config(connect_timeout=2, read_timeout=2, retries={"max_attempts": 0}),
    )  # fmt: skip
    client.list_buckets()


CLIENTS: dict[str, Callable[[str, int, Path], None]] = {
    "PostgreSQL": to_postgres,
    "PostgreSQL through DuckDB": to_postgres_scanner,
    "MongoDB": to_mongodb,
    "Kafka": to_kafka,
    "S3": to_s3,
}
FAILURES = (
    psycopg.Error, duckdb.Error, pymongo.errors.PyMongoError, KafkaException,
    botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError,
)  # fmt: skip


def ask(name: str, tmp_path: Path, *, named: str, trusts_its_signer: bool) -> Seen:
    """A client asks a server whose certificate is for `named`, trusting its signer or another."""
    signer, stranger = authority(tmp_path, "signer"), authority(tmp_path, "stranger")
    files = server_files(tmp_path, named, signer)
    with tls_server(*files, postgres=name.startswith("PostgreSQL")) as seen:
        with pytest.raises(FAILURES):  # it is no real server, so that even a client that trusts it ends with an error
            CLIENTS[name]("localhost", seen.port, (signer if trusts_its_signer else stranger)[0])
        if trusts_its_signer and named == "localhost":
            seen.done.wait(3)
        return seen


@pytest.mark.parametrize("name", CLIENTS)
def test_the_right_certificate_is_trusted(name: str, tmp_path: Path) -> None:
    """Without this, a refusal would prove nothing."""
    assert ask(name, tmp_path, named="localhost", trusts_its_signer=True).trusted > 0


@pytest.mark.parametrize("name", CLIENTS)
def test_a_wrong_authority_is_refused(name: str, tmp_path: Path) -> None:
    seen = ask(name, tmp_path, named="localhost", trusts_its_signer=False)
    assert seen.tried > 0
    assert seen.trusted == 0


@pytest.mark.parametrize("name", CLIENTS)
def test_a_wrong_host_name_is_refused(name: str, tmp_path: Path) -> None:
    seen = ask(name, tmp_path, named="db.example.org", trusts_its_signer=True)
    assert seen.tried > 0
    assert seen.trusted == 0
