"""A published copy without a build: a few marts of one row each, and the manifest that declares them."""

from __future__ import annotations

import json

from tests.integration.small_warehouse import MARTS
from tests.security.test_roles import declared
from warehouse.core.database import open_warehouse
from warehouse.core.locks import writer_lock
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.publish import publish


def publish_few_marts(settings: Settings, *statements: str) -> None:
    """Make the marts in the warehouse, run `statements` there, publish."""
    with open_warehouse(settings) as connection:
        connection.execute(MARTS)
        for statement in statements:
            connection.execute(statement)
    target = Home.of(settings).dbt_target
    target.mkdir()
    (target / "manifest.json").write_text(json.dumps(declared()))
    with writer_lock(settings, "publish"):
        publish(settings)
