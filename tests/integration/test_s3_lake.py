"""The lake and the drops on S3: the same rows, encrypted by the store, complete or not part of the lake."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pytest

from ingestion import rekey as rekeying
from ingestion.compaction import compact
from ingestion.lake import SEAL, Lake, parts_sql
from ingestion.replay import replay
from ingestion.run import ingest
from ingestion.sources.files.drops import ASIDE, SEALED
from tests.conftest import MakeSettings
from tests.integration.landed_home import NOWHERE, REFERENCE, change_products, drop, drop_reference, query
from warehouse.core import objects
from warehouse.core.errors import ConfigurationError, SourceUnavailable, WarehouseError
from warehouse.core.keys import file_key
from warehouse.core.locks import writer_lock
from warehouse.core.objects import ObjectPath
from warehouse.core.paths import Home
from warehouse.core.settings import Settings, load_settings
from warehouse.file_keys import Rotated, rotate_file_key
from warehouse.rotation import rotate_token_key

pytest.importorskip("moto.server", reason="moto[server] (extra dev) is the S3 of these tests")

KEY_ID, SECRET = "planted-key-id", "planted-secret-word"
CURRENCIES = """currency_code,numeric_code,currency_name,minor_unit,updated_at
CHF,756,Franc,2,2024-01-01 00:00:00+00
SEK,752,Krona,2.5,2024-01-01 00:00:00+00
"""
"""The second row does not fit."""
VERSIONS = "select * exclude (_dlt_load_id) from raw_oltp.product_history order by all"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(endpoint: str) -> Any:
    return boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=KEY_ID, aws_secret_access_key=SECRET, region_name="eu-west-1"
    )


@pytest.fixture
def settings(tmp_path: Path, make_settings: MakeSettings, endpoint: str, client: Any) -> Settings:
    bucket = f"lake-{tmp_path.name.lower().replace('_', '-')[-40:]}"
    client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    return make_settings(
        tmp_path / "home",
        lake_uri=f"s3://{bucket}/some/prefix",
        drops_uri=None,
        drops_settle_seconds=0,
        lake_endpoint=endpoint,
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
        aws_region="eu-west-1",
    )


def bucket_of(settings: Settings) -> str:
    return str(settings.lake_uri).split("/")[2]


def keys(client: Any, settings: Settings) -> list[str]:
    found = client.list_objects_v2(Bucket=bucket_of(settings)).get("Contents", ())
    return [item["Key"] for item in found]


def products(settings: Settings, day: int | None = None) -> None:
    if day is None:
        drop(settings, "oltp/product/reference.csv", (REFERENCE / "oltp" / "product.csv").read_bytes())
    else:
        change_products(settings, day)
    ingest(settings, NOWHERE, run_id="drops", sources=("files",))


def test_a_lake_on_s3_is_encrypted_complete_and_replayable(settings: Settings, client: Any) -> None:
    drop_reference(settings)
    ingest(settings, NOWHERE, run_id="drops", sources=("files",))
    products(settings, 1)
    written = keys(client, settings)
    assert all(key.startswith("some/prefix/") for key in written)
    for key in written:
        assert client.head_object(Bucket=bucket_of(settings), Key=key)["ServerSideEncryption"] == "AES256", key
    assert not Home.of(settings).lake.exists()
    before = query(settings, VERSIONS)
    current = query(settings, "select * exclude (_dlt_load_id) from raw_mongodb.transactions order by all")
    loads = Lake(settings).sealed_loads("oltp", "product")
    assert len(loads) == 2
    for load in loads:
        load.verify()
        parts = [key for key in written if f"product/{load.load_id}/" in key and key.endswith(".parquet")]
        assert parts and all(key.endswith(file.path.name) for key, file in zip(parts, load.files, strict=True))
    replay(settings)
    compact(settings, min_loads=2)
    assert len(Lake(settings).sealed_loads("oltp", "product")) == 1
    replay(settings)
    assert query(settings, VERSIONS) == before
    assert query(settings, "select * exclude (_dlt_load_id) from raw_mongodb.transactions order by all") == current


def test_a_changed_object_is_found(settings: Settings, client: Any) -> None:
    products(settings)
    (load,) = Lake(settings).sealed_loads("oltp", "product")
    path = load.files[0].path
    assert isinstance(path, ObjectPath)
    client.put_object(Bucket=path.bucket, Key=path.key, Body=b"x" * load.files[0].size)
    with pytest.raises(WarehouseError, match="is not what was sealed"):
        replay(settings)
    client.delete_object(Bucket=path.bucket, Key=path.key)
    with pytest.raises(WarehouseError, match="is missing"):
        replay(settings)


def rotate_lake_key(settings: Settings) -> Rotated:
    with writer_lock(settings, "rotate-key", rotates=True):
        return rotate_file_key(settings, "lake")


def written_at(client: Any, settings: Settings) -> dict[str, tuple[str | None, str | None]]:
    """Object → how it is encrypted, and which rotation wrote it."""
    heads = {key: client.head_object(Bucket=bucket_of(settings), Key=key) for key in keys(client, settings)}
    return {key: (head.get("ServerSideEncryption"), head["Metadata"].get("rekeyed")) for key, head in heads.items()}


@pytest.fixture
def rich(settings: Settings) -> Settings:
    """Loads on S3, and on disk a file put aside under the lake's key."""
    for name in ("customer", "product"):
        drop(settings, f"oltp/{name}/reference.csv", (REFERENCE / "oltp" / f"{name}.csv").read_bytes())
    drop(settings, "oltp/currency/odd.csv", CURRENCIES.encode())
    ingest(settings, NOWHERE, run_id="drops", sources=("files",))
    products(settings, 1)
    return settings


def aside(settings: Settings, key: str) -> int:
    """How many of the files that were put aside open with a key, of one."""
    (path,) = (Home.of(settings).drops / ASIDE).rglob(f"*{SEALED}")
    connection = duckdb.connect()
    connection.execute(f"pragma add_parquet_key('lake', '{key}')")
    try:
        return len(connection.execute(f"select content from {parts_sql([path])}").fetchall())
    except duckdb.Error:
        return 0


def test_every_object_is_written_anew_under_a_key_of_now(rich: Settings, client: Any) -> None:
    before, old = query(rich, VERSIONS), file_key(rich, "lake")
    texts = {key: client.get_object(Bucket=bucket_of(rich), Key=key)["Body"].read() for key in keys(client, rich)}
    assert aside(rich, old) == 1
    marks = set()
    for _ in range(2):
        rotated = rotate_lake_key(rich)
        assert rotated.files == len(texts) + 1
        assert rotated.bytes > sum(map(len, texts.values()))
        found = written_at(client, rich)
        assert {encryption for encryption, _ in found.values()} == {"AES256"}
        ((mark,),) = [{mark for _, mark in found.values()}]
        marks.add(mark)
    assert len(marks) == 2 and None not in marks
    assert file_key(rich, "lake") != old
    assert (aside(rich, old), aside(rich, file_key(rich, "lake"))) == (0, 1)
    assert {
        key: client.get_object(Bucket=bucket_of(rich), Key=key)["Body"].read() for key in keys(client, rich)
    } == texts, "what the objects hold is what was sealed"
    with writer_lock(rich, "replay"):
        replay(rich)
    assert query(rich, VERSIONS) == before


@pytest.mark.parametrize("calls", [1, 5])
def test_a_killed_rotation_goes_on_where_it_stopped(
    rich: Settings, client: Any, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    before, count = query(rich, VERSIONS), len(keys(client, rich))
    real, done = ObjectPath.rewrite, []

    def killed(path: ObjectPath, mark: str) -> bool:
        done.append(real(path, mark))
        if len(done) == calls:
            raise KeyboardInterrupt
        return done[-1]

    with monkeypatch.context() as patch:
        patch.setattr(ObjectPath, "rewrite", killed)
        with pytest.raises(KeyboardInterrupt):
            rotate_lake_key(rich)
    with pytest.raises(ConfigurationError, match="was interrupted"), writer_lock(rich, "replay"):
        pass
    assert len({mark for _, mark in written_at(client, rich).values()}) == 2
    assert rotate_lake_key(rich).files == count - calls + 1, "what was done is not done again"
    assert len({mark for _, mark in written_at(client, rich).values()}) == 1
    with writer_lock(rich, "replay"):
        replay(rich)
    assert query(rich, VERSIONS) == before


def test_nothing_written_anew_is_lost_when_the_store_does_not_encrypt(
    rich: Settings, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, written = objects._client, keys(client, rich)

    def deaf(used: Settings) -> Any:
        made = make(used)
        made.meta.events.register(
            "before-sign.s3.CopyObject",
            lambda request, **_: request.headers.__delitem__("x-amz-server-side-encryption"),
        )
        return made

    with monkeypatch.context() as patched:
        patched.setattr(objects, "_client", deaf)
        with pytest.raises(ConfigurationError, match="did not encrypt") as caught:
            rotate_lake_key(rich)
    assert caught.value.kept and caught.value.todo
    assert keys(client, rich) == written
    rotate_lake_key(rich)
    assert {encryption for encryption, _ in written_at(client, rich).values()} == {"AES256"}


@pytest.mark.parametrize("killed", [None, "_replace"])
def test_tokens_on_s3_move_to_a_new_key(
    rich: Settings, client: Any, monkeypatch: pytest.MonkeyPatch, killed: str | None
) -> None:
    raw = query(rich, "select count(*), count(distinct email_token) from raw_oltp.customer")
    if killed:
        real = rekeying._replace

        def dies(*args: Any) -> None:
            real(*args)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(rekeying, killed, dies)
            with pytest.raises(KeyboardInterrupt), writer_lock(rich, "rotate", rotates=True):
                rotate_token_key(rich)
    with writer_lock(rich, "rotate", rotates=True):
        receipt = rotate_token_key(rich)
    assert receipt.broken == 0
    assert receipt.matched_before == receipt.matched_after > 0
    for load in Lake(rich).sealed_loads("oltp", "customer"):
        load.verify()
    assert {encryption for encryption, _ in written_at(client, rich).values()} == {"AES256"}
    with writer_lock(rich, "replay"):
        replay(rich)
    assert query(rich, "select count(*), count(distinct email_token) from raw_oltp.customer") == raw
    assert query(rich, "select count(*) from raw_oltp.customer where email_token like 'v1:%'") == [(0,)]


def test_a_missing_bucket_is_named(settings: Settings) -> None:
    gone = settings.model_copy(update={"lake_uri": "s3://no-such-bucket/lake"})
    drop(settings, "oltp/product/reference.csv", (REFERENCE / "oltp" / "product.csv").read_bytes())
    with pytest.raises(ConfigurationError, match="there is no bucket no-such-bucket") as caught:
        ingest(gone, NOWHERE, run_id="drops", sources=("files",))
    assert caught.value.todo
    assert (Home.of(settings).drops / "oltp" / "product" / "reference.csv").exists()


def test_a_store_that_does_not_encrypt_is_refused(
    settings: Settings, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy, or a store, that ignores the demand: the object is seen by its HEAD and deleted."""
    make = objects._client

    def deaf(used: Settings) -> Any:
        made = make(used)
        made.meta.events.register(
            "before-sign.s3", lambda request, **_: request.headers.__delitem__("x-amz-server-side-encryption")
        )
        return made

    monkeypatch.setattr(objects, "_client", deaf)
    drop(settings, "oltp/product/reference.csv", (REFERENCE / "oltp" / "product.csv").read_bytes())
    with pytest.raises(WarehouseError, match="did not encrypt"):
        ingest(settings, NOWHERE, run_id="drops", sources=("files",))
    assert keys(client, settings) == []
    assert query(settings, "select count(*) from raw_oltp.product") == [(0,)]


@pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "PutObject"])
def test_an_error_in_the_middle_loses_nothing(
    settings: Settings, client: Any, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    from botocore.exceptions import ConnectionClosedError

    make = objects._client

    def broken(used: Settings) -> Any:
        made = make(used)

        def fail(**_: Any) -> None:
            raise ConnectionClosedError(endpoint_url="planted-url")

        made.meta.events.register(f"before-call.s3.{operation}", fail)
        return made

    products(settings)
    before = query(settings, VERSIONS)
    change_products(settings, 3)
    with monkeypatch.context() as patched:
        patched.setattr(objects, "_client", broken)
        with pytest.raises(WarehouseError) as caught:
            ingest(settings, NOWHERE, run_id="broken", sources=("files",))
    assert SECRET not in str(caught.value) and "planted-url" not in str(caught.value)
    assert query(settings, VERSIONS) == before
    assert len(Lake(settings).sealed_loads("oltp", "product")) == 1
    assert not client.list_multipart_uploads(Bucket=bucket_of(settings)).get("Uploads")
    report = ingest(settings, NOWHERE, run_id="mended", sources=("files",))
    assert report.landed_rows > 0
    seals = [key for key in keys(client, settings) if key.endswith(SEAL)]
    assert len(seals) == len({key.rsplit("/", 1)[0] for key in keys(client, settings)}) == 2
    after = query(settings, VERSIONS)
    replay(settings)
    assert query(settings, VERSIONS) == after


def _die_before_the_seal(settings: Settings) -> None:
    def killed(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    Lake.seal = killed
    ingest(settings, NOWHERE, run_id="killed", sources=("files",))


def test_a_killed_upload_is_not_part_of_the_lake(settings: Settings, client: Any) -> None:
    drop(settings, "oltp/product/reference.csv", (REFERENCE / "oltp" / "product.csv").read_bytes())
    process = get_context("forkserver").Process(target=_die_before_the_seal, args=(settings,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    (left,) = keys(client, settings)
    assert left.endswith("part-00000.parquet")
    assert Lake(settings).sealed_loads("oltp", "product") == []
    ingest(settings, NOWHERE, run_id="next", sources=("files",))
    assert left not in keys(client, settings)
    (load,) = Lake(settings).sealed_loads("oltp", "product")
    assert query(settings, "select count(*) from raw_oltp.product") == [(load.rows,)]


def test_drops_on_s3_land_and_leave(settings: Settings, client: Any) -> None:
    bucket = bucket_of(settings)
    settings = settings.model_copy(update={"drops_uri": f"s3://{bucket}/drops"})
    names = "currency_code,numeric_code,currency_name,minor_unit,updated_at\n"
    good = names + "EUR,978,Euro,2,2024-01-01 00:00:00+00\n"
    placed = {
        "oltp/currency/good.csv": good,
        "oltp/currency/good.csv.manifest.json": '{"rows": 1}',
        "oltp/currency/odd.csv": good + "USD,840,Dollar,2.5,2024-01-01 00:00:00+00\n",
        "oltp/currency/wrong.csv": "nothing\n",
        "oltp/currency/_writing.csv": good,
        "oltp/currency/deep/er.csv": good,
        "oltp/../currency/up.csv": good,
    }
    for name, text in placed.items():
        client.put_object(Bucket=bucket, Key=f"drops/{name}", Body=text.encode())
    with pytest.raises(WarehouseError, match="2 dropped files did not land") as caught:
        ingest(settings, NOWHERE, run_id="drops", sources=("files",))
    assert "oltp/currency/wrong.csv lacks the columns" in str(caught.value)
    assert query(settings, "select currency_code from raw_oltp.currency") == [("EUR",)]
    left = [key.removeprefix("drops/") for key in keys(client, settings) if key.startswith("drops/")]
    aside = [key for key in left if key.startswith("_quarantined/")]
    assert len(aside) == 1 and aside[0].endswith("-odd.csv")
    assert sorted(set(left) - set(aside)) == [
        "oltp/../currency/up.csv",
        "oltp/currency/_writing.csv",
        "oltp/currency/deep/er.csv",
        "oltp/currency/wrong.csv",
    ]


def test_refused_credentials_and_a_store_that_is_down(settings: Settings) -> None:
    drop(settings, "oltp/product/reference.csv", (REFERENCE / "oltp" / "product.csv").read_bytes())
    down = settings.model_copy(update={"lake_endpoint": "http://127.0.0.1:1"})
    with pytest.raises(SourceUnavailable, match="the object store failed on bucket") as caught:
        ingest(down, NOWHERE, run_id="down", sources=("files",))
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigurationError, match="without credentials"):
        ingest(settings.model_copy(update={"aws_secret_access_key": None}), NOWHERE, run_id="x", sources=("files",))


@pytest.mark.parametrize("address", ["http://store.example.org", "https://user:word@store.example.org", "store:9000"])
def test_an_endpoint_without_tls_or_with_credentials_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="LAKE_ENDPOINT"):
        load_settings(lake_endpoint=address)
