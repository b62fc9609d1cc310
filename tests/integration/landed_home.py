"""A home whose raw tables were filled from file drops of the reference data: no server needed."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from ingestion.run import ingest
from ingestion.schema import tables
from warehouse.core.database import open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.paths import Home
from warehouse.core.settings import PROJECT_ROOT, Settings

NOWHERE = Endpoints(None, None, None)
REFERENCE = PROJECT_ROOT / "warehouse" / "simulation" / "reference"


def drop(settings: Settings, place: str, data: bytes) -> Path:
    """Leave a file that has been there for a minute."""
    path = Home.of(settings).drops / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (time.time() - 60, time.time() - 60))
    return path


def drop_reference(settings: Settings) -> None:
    """The reference data set, a file per table."""
    for table in tables("oltp").values():
        drop(settings, f"oltp/{table.name}/reference.csv", (REFERENCE / "oltp" / f"{table.origin}.csv").read_bytes())
    for table in tables("mongodb").values():
        text = (REFERENCE / "mongodb" / f"{table.origin}.jsonl").read_bytes()
        drop(settings, f"mongodb/{table.name}/reference.jsonl", text)
    (table,) = tables("stream").values()
    events = (REFERENCE / "stream.jsonl").read_text(encoding="utf-8").splitlines()
    messages = (
        json.dumps({"topic": table.origin, "partition": 0, "offset": place, "ts": 1700000000000, "payload": event})
        for place, event in enumerate(events)
    )
    drop(settings, f"stream/{table.name}/reference.jsonl", "\n".join(messages).encode())


def land_reference(settings: Settings) -> None:
    """Leave the reference data set and land it."""
    drop_reference(settings)
    ingest(settings, NOWHERE, run_id="reference", sources=("files",))


def copy_home(settings: Settings, home: Path, **overrides: object) -> Settings:
    """A copy of a home, keys and all, in the folder `home`; its settings, with these overrides."""
    shutil.copytree(settings.warehouse_home, home)
    return settings.model_copy(update={"warehouse_home": home, **overrides})


def change_products(settings: Settings, day: int) -> None:
    """A drop in which every second product has another name."""
    lines = list(csv.DictReader(io.StringIO((REFERENCE / "oltp" / "product.csv").read_text(encoding="utf-8"))))
    for line in lines[day % 2 :: 2]:
        line["product_name"] = f"Name of day {day}"
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    drop(settings, f"oltp/product/day{day}.csv", out.getvalue().encode())


def query(settings: Settings, sql: str) -> list[Any]:
    """The rows of a query on the writer's database."""
    with open_warehouse(settings, read_only=True) as connection:
        return connection.execute(sql).fetchall()
