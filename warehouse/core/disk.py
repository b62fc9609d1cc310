"""A full disk fails in a hundred ways; this names the one cause."""

from __future__ import annotations

import shutil

from warehouse.core.errors import WarehouseError
from warehouse.core.paths import Home
from warehouse.core.settings import Settings

FULL_BELOW_BYTES = 8 * 2**20
"""Less than this, and whatever just failed failed for want of room: DuckDB writes in steps of a few megabytes."""


def name_full_disk(error: WarehouseError, settings: Settings) -> WarehouseError:
    """`error` itself, or with the full disk as its cause when there is no room below WAREHOUSE_HOME."""
    if shutil.disk_usage(Home.of(settings).root).free >= FULL_BELOW_BYTES or "disk is full" in error.what:
        return error
    error.what = f"the disk is full: {error.what}"
    error.todo = f"free some space below {Home.of(settings).root}, then run this again"
    return error
