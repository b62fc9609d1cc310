"""Runs the suites of a border and builds their data docs. What fails is reported and not raised: the caller decides."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Collection, Sequence
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expectations.docs import make_self_contained
from expectations.report import Border, Failure, QualityReport
from warehouse.core.database import open_warehouse
from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import CATALOG, Settings

if TYPE_CHECKING:
    import duckdb
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext

    from expectations.rules import Suite


DOCS_SITE = "data_docs"
REPORT_NAME = "report.json"
"""Beside the data docs of a border: the last report, for the site and `warehouse status`."""


def run_landing(
    settings: Settings, progress: Progress = silent, *, schemas: Collection[str] | None = None
) -> QualityReport:
    """Check `raw_*`, before anything is built from it.

    Args:
        schemas: only their tables, where the others are what they were when they passed. Then the data docs and the
            saved report stay those of the last whole check.

    Raises:
        ConfigurationError: there is no warehouse yet, or its key does not fit.
        AlreadyRunning: another process is writing to it.
    """
    return _run(settings, "landing", progress, schemas)


def run_publishing(settings: Settings, progress: Progress = silent) -> QualityReport:
    """Check `public`, before it is published. Raises as `run_landing` does."""
    return _run(settings, "publishing", progress)


def _run(
    settings: Settings, border: Border, progress: Progress, schemas: Collection[str] | None = None
) -> QualityReport:
    started = time.perf_counter()
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)  # its messages can quote what a query returned

    # Great Expectations takes seconds to import, so only where it runs.
    from expectations import landing, publishing
    from expectations.rules import add_macros

    folder = Home.of(settings).site / "data_docs" / border
    with open_warehouse(settings, read_only=True) as connection:
        add_macros(connection)
        suites = landing.suites() if border == "landing" else publishing.suites(connection)
        if schemas is not None:
            suites = [suite for suite in suites if suite.schema in schemas]
        context = _context(folder)
        failed, evaluated = _validate(context, connection, suites, progress)
    if schemas is None:
        progress("data docs")
        _write_docs(context, folder, suites, failed)
    report = QualityReport(
        border=border,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        suites=len(suites),
        evaluated=evaluated,
        failed=tuple(failed),
        seconds=time.perf_counter() - started,
        data_docs=folder / "index.html",
    )
    if schemas is None:
        (folder / REPORT_NAME).write_text(json.dumps(report.to_dict(), indent=1), encoding="utf-8")
    return report


def _validate(
    context: EphemeralDataContext,
    connection: duckdb.DuckDBPyConnection,
    suites: Sequence[Suite],
    progress: Progress,
) -> tuple[list[Failure], int]:
    existing = {
        f"{schema}.{table}"
        for schema, table in connection.execute(
            "select table_schema, table_name from information_schema.tables where table_catalog = ?", [CATALOG]
        ).fetchall()
    }
    failed: list[Failure] = []
    evaluated = 0
    for number, suite in enumerate(suites, start=1):
        progress(f"{suite.name} ({number} of {len(suites)})")
        if suite.name not in existing:
            failed.append(Failure(suite.name, "the table exists", None))
            evaluated += 1
            continue
        for result in _validate_table(context, connection, suite):
            evaluated += 1
            if not result.success:
                failed.append(_failure(suite, result))
    return failed, evaluated


def _write_docs(
    context: EphemeralDataContext, folder: Path, suites: Sequence[Suite], failed: Sequence[Failure]
) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    context.build_data_docs(site_names=[DOCS_SITE])
    broken = Counter(failure.suite for failure in failed)
    make_self_contained(
        folder, title=f"Expectations: {folder.name}", failed={suite.name: broken[suite.name] for suite in suites}
    )


def _context(folder: Path) -> EphemeralDataContext:
    """A context that lives in memory; the only thing it writes is the data docs in `folder`."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "site_section_builders": {"expectations": "none", "profiling": "none"},  # results show the expectations too
    }
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        data_docs_sites={DOCS_SITE: site},
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _validate_table(context: EphemeralDataContext, connection: duckdb.DuckDBPyConnection, suite: Suite) -> list[Any]:
    import great_expectations as gx

    datasource = _datasource(context, connection, suite.schema)
    batch = datasource.add_table_asset(suite.table).add_batch_definition_whole_table("all rows")
    expectations = context.suites.add(
        gx.ExpectationSuite(suite.name, expectations=[copy(rule) for rule in suite.expectations])
    )
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=suite.name, data=batch, suite=expectations)
    )
    # BOOLEAN_ONLY: anything more keeps row values in the results, and the data docs show them.
    return list(definition.run(result_format="BOOLEAN_ONLY").results)


def _datasource(context: EphemeralDataContext, connection: duckdb.DuckDBPyConnection, schema: str) -> Any:
    from expectations.datasource import HeldDuckDBDatasource

    if schema in context.data_sources.all():
        return context.data_sources.get(schema)
    datasource = HeldDuckDBDatasource(name=schema, database_schema=schema)
    datasource.hold(connection)
    return context.add_datasource(datasource=datasource)


def _failure(suite: Suite, result: Any) -> Failure:
    expectation = result.expectation_config
    meta = expectation.meta or {}
    columns = expectation.kwargs.get("column_list")
    rule = meta.get("rule", expectation.type)
    return Failure(
        suite=suite.name,
        expectation=f"{rule} (could not be evaluated)" if _raised(result.exception_info) else rule,
        column=meta.get("column") or expectation.kwargs.get("column") or (", ".join(columns) if columns else None),
    )


def _raised(exception_info: dict[str, Any]) -> bool:
    """Whether Great Expectations met an error: told either flat or per metric."""
    return any(
        info is True or (isinstance(info, dict) and info["raised_exception"]) for info in exception_info.values()
    )
