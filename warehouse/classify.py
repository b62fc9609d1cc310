"""The classification of this project as dbt compiled it last: the manifest, and what the boundary lets land."""

from __future__ import annotations

import json

from ingestion.classification import landed_traces
from warehouse.core.database import blank_connection
from warehouse.core.errors import ConfigurationError
from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import Settings
from warehouse.dbt import run_dbt
from warehouse.privacy.classification import Classification, classify


def compile_models(settings: Settings, progress: Progress = silent) -> None:
    """Let dbt compile every model as it would be built anew: what an incremental run leaves out is looked at, too."""
    blank_connection(settings).close()  # a home that nothing was landed in has no extension for dbt yet
    models = ["--select", "resource_type:model", "resource_type:snapshot"]
    run_dbt(settings, ["compile", "--full-refresh", *models], progress=progress)


def classify_compiled(settings: Settings) -> Classification:
    """Read the manifest that the last `dbt compile` or `dbt build` of this home left.

    Raises:
        ConfigurationError: there is none.
    """
    path = Home.of(settings).dbt_target / "manifest.json"
    if not path.exists():
        raise ConfigurationError("dbt has compiled nothing yet", todo="run `warehouse privacy classify` or a refresh")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    return classify(manifest, landed_traces(), dialect=settings.dbt_target)
