"""Source systems with the reference data set and some thousand rows more, and a home that has landed them once.

Every test gets a copy of that home, so that what one test breaks is not what the next one finds. The sources are
shared and change as the tests go on: a test compares its warehouse with the sources as they are then.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bson import Decimal128

from tests.conftest import MakeSettings
from tests.faults.world import World
from warehouse import servers, simulation


@pytest.fixture(scope="package")
def landed(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Iterator[World]:
    """The home that is copied; its servers run until the package's tests are done."""
    settings = make_settings(tmp_path_factory.mktemp("faults") / "home", dataset="reference", lake_uri=None)
    try:
        try:
            endpoints = servers.up(settings)
        except servers.ServerMissing as error:
            pytest.skip(error.what)
        simulation.fill(settings, endpoints)
        world = World(settings, endpoints)
        _add_rows(world)
        world.ingest()
        world.assert_whole()
        yield world
    finally:
        servers.down(settings)


@pytest.fixture
def world(landed: World, tmp_path: Path) -> World:
    """A copy of the landed home, brought up to the sources as they are now."""
    return brought_up(landed, tmp_path / "home")


def brought_up(landed: World, home: Path) -> World:
    """A copy of the landed home at `home`, which lands what other tests have changed at the sources since."""
    shutil.copytree(landed.settings.warehouse_home, home, ignore=shutil.ignore_patterns("servers"))
    copy = World(landed.settings.model_copy(update={"warehouse_home": home}), landed.endpoints)
    copy.ingest(accept_deletes=True)
    return copy


def _add_rows(world: World) -> None:
    world.add_payments(3_000, "timestamptz '2024-06-01' + number * interval '1 second'")
    start = datetime(2024, 6, 1, tzinfo=UTC)
    world.documents.Transactions.insert_many(
        {
            "transaction_id": f"DOC{number}",
            "amount": Decimal128(f"{number}.0001"),
            "date": {"created": start, "updated": start + timedelta(seconds=number)},
            "currency": {"code": "EUR"},
        }
        for number in range(1_000)
    )
    event = {"schema_version": 1, "event_type": "payment.captured", "transaction_id": "TXN001", "amount": "1.50"}
    for partition in range(3):
        world.produce(
            *(json.dumps(event | {"event_id": f"extra-{partition}-{n}"}).encode() for n in range(500)),
            partition=partition,
        )
