"""The lake on S3: an upload that fails, or is cut off by a kill, leaves nothing that anyone would take for landed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ConnectionClosedError

from ingestion.lake import SEAL, Lake
from tests.faults.naive import Died, die, shows
from tests.faults.world import World
from warehouse.core import objects
from warehouse.core.errors import WarehouseError
from warehouse.core.settings import Settings

pytest.importorskip("moto.server", reason="moto[server] (extra dev) is the S3 of these tests")

BUCKET = "faults-lake"
SECRET = "planted-secret-word"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(endpoint: str) -> Any:
    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="id", aws_secret_access_key=SECRET, region_name="eu-west-1"
    )
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    yield client
    for key in keys(client):
        client.delete_object(Bucket=BUCKET, Key=key)
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def on_s3(world: World, endpoint: str, store: Any) -> Settings:
    """The world's settings, with what lands from now on in a bucket."""
    changed = {
        "lake_uri": f"s3://{BUCKET}/lake",
        "lake_endpoint": endpoint,
        "aws_access_key_id": "id",
        "aws_secret_access_key": SECRET,
        "aws_region": "eu-west-1",
    }
    return Settings.model_validate(world.settings.model_dump() | changed)


def keys(store: Any) -> list[str]:
    return [item["Key"] for item in store.list_objects_v2(Bucket=BUCKET).get("Contents", ())]


@pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "PutObject"])
def test_an_upload_that_fails(
    world: World, on_s3: Settings, store: Any, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    naive = world.naive(goes_on=True)
    world.add_payments(300)
    make = objects._client

    def broken(used: Settings) -> Any:
        made = make(used)
        made.meta.events.register(f"before-call.s3.{operation}", fail)
        return made

    def fail(**_: Any) -> None:
        raise ConnectionClosedError(endpoint_url="planted-url")

    before = world.row("select count(*), sum(amount) from raw_oltp.transaction")
    cursor = world.state("oltp")["transaction"]
    with monkeypatch.context() as patched:
        patched.setattr(objects, "_client", broken)
        with pytest.raises(WarehouseError) as caught:
            world.ingest("oltp", settings=on_s3)
    assert SECRET not in str(caught.value)
    assert "planted-url" not in str(caught.value)
    assert world.row("select count(*), sum(amount) from raw_oltp.transaction") == before
    assert world.state("oltp")["transaction"] == cursor
    assert not store.list_multipart_uploads(Bucket=BUCKET).get("Uploads")
    assert Lake(on_s3).sealed_loads("oltp", "transaction") == []
    world.ingest("oltp", settings=on_s3)
    world.assert_whole("oltp")
    (load,) = Lake(on_s3).sealed_loads("oltp", "transaction")
    load.verify()
    assert load.rows == 300

    store.meta.events.register("before-call.s3.PutObject", fail)
    naive.run(at=60, fault=lambda: store.put_object(Bucket=BUCKET, Key="naive/page-2", Body=b"rows"))
    store.meta.events.unregister("before-call.s3.PutObject", fail)
    naive.run()
    shows("object store fails in an upload", naive, at_least=200)


def test_a_kill_with_an_upload_half_done(world: World, on_s3: Settings, store: Any) -> None:
    naive = world.naive()
    world.add_payments(300)
    world.killed("half sealed", "oltp", settings=on_s3)
    left = keys(store)
    assert [key for key in left if key.endswith(".parquet")]
    assert not [key for key in left if key.endswith(SEAL)]
    assert Lake(on_s3).sealed_loads("oltp", "transaction") == []
    world.ingest("oltp", settings=on_s3)
    world.assert_whole("oltp")
    assert not set(left) & set(keys(store)), "what has no seal is deleted"
    (load,) = Lake(on_s3).sealed_loads("oltp", "transaction")
    assert load.rows == 300

    def upload() -> None:
        """A page per object, named by the run: whatever lies there is read as landed."""
        for number, (key, content) in enumerate(naive.rows[len(naive.rows) - 100 :]):
            store.put_object(Bucket=BUCKET, Key=f"naive/{len(keys(store))}-{number}-{key}", Body=content.encode())
        die()

    with pytest.raises(Died):
        naive.run(at=100, fault=upload)
    del naive.rows[-100:]  # in memory, gone; its objects are there
    naive.run()
    naive.rows += [
        (key.split("-", 2)[2], store.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode())
        for key in keys(store)
        if key.startswith("naive/")
    ]
    shows("killed with an upload half done", naive, at_least=100)
