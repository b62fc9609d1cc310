"""The site: one page that says what is loaded and whether to trust it, beside dbt's docs and the data docs.

Plain HTML and CSS, nothing loaded from elsewhere, no row of data: names, counts and times.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from warehouse.bus_matrix import bus_matrix
from warehouse.core.database import open_warehouse
from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import Settings
from warehouse.privacy.controls import load_controls, with_results
from warehouse.sbom import sbom_json
from warehouse.status import count_rows, status

LAYERS = {
    "raw_oltp": "Landed from PostgreSQL",
    "raw_mongodb": "Landed from MongoDB",
    "raw_stream": "Landed from Kafka",
    "raw_ops": "Bookkeeping of loads and runs",
    "reference": "Reference lists",
    "staging": "Typed and renamed, one to one with the sources",
    "intermediate": "Worked out on the way to the marts",
    "public": "Marts, published",
    "features": "Features for models, published",
    "ops": "What the platform did, published",
}
"""Schema → what it holds, in the order data flows. Test failures and dlt's own schemas are not shown."""


@dataclass(frozen=True)
class Layer:
    """One schema and the rows of its tables."""

    schema: str
    about: str
    tables: tuple[tuple[str, int], ...]

    @property
    def rows(self) -> int:
        """Of all its tables."""
        return sum(rows for _, rows in self.tables)


def build_site(settings: Settings, progress: Progress = silent, *, run: Mapping[str, Any] | None = None) -> Path:
    """Write `index.html` and the bus matrix, put dbt's static docs beside them; the data docs are there already.

    Args:
        settings: whose warehouse.
        progress: told what is being written.
        run: the report of the run that is going on; default the newest one on disk.

    Returns:
        The path of `index.html`.
    """
    home = Home.of(settings)
    home.site.mkdir(parents=True, exist_ok=True)
    static_docs = home.dbt_target / "static_index.html"
    if static_docs.exists():
        progress("dbt docs")
        shutil.copyfile(static_docs, home.site / "docs.html")
    manifest = home.dbt_target / "manifest.json"
    if manifest.exists():
        progress("bus matrix")
        matrix = bus_matrix(json.loads(manifest.read_text(encoding="utf-8")))
        text = _environment().get_template("bus_matrix.html").render(matrix=matrix)
        (home.site / "bus_matrix.html").write_text(text, encoding="utf-8")
    controls = with_results(load_controls())
    text = _environment().get_template("controls.html").render(controls=controls)
    (home.site / "controls.html").write_text(text, encoding="utf-8")
    (home.site / "sbom.json").write_text(sbom_json(), encoding="utf-8")
    progress("counting rows")
    with open_warehouse(settings, read_only=True) as connection:
        layers = _layers(count_rows(connection))
    now = status(settings)
    progress("index.html")
    page = (
        _environment()
        .get_template("site.html")
        .render(
            now=now,
            run=run or now.last_run,
            layers=layers,
            has_docs=(home.site / "docs.html").exists(),
            has_bus_matrix=(home.site / "bus_matrix.html").exists(),
            built_at=datetime.now(UTC),
        )
    )
    index = home.site / "index.html"
    temporary = index.with_suffix(".html.new")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(index)
    return index


def _layers(counts: Mapping[str, int]) -> list[Layer]:
    layers = []
    for schema, about in LAYERS.items():
        tables = tuple(
            (name.removeprefix(f"{schema}."), rows) for name, rows in counts.items() if name.startswith(f"{schema}.")
        )
        if tables:
            layers.append(Layer(schema, about, tables))
    return layers


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("warehouse", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = "{:,}".format
    environment.filters["minutes"] = lambda moment: f"{moment:%Y-%m-%d %H:%M} UTC"
    return environment
