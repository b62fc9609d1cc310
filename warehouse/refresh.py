"""The sequence, under one lock: sources → landing → expectations → freshness → build → expectations → publish → site.

Each step is timed and recorded. A failing step ends the run; what readers see is still the copy published before.
Where nothing landed, and nothing that models or expectations are made of has changed since the copy that readers have,
only the accounts of the runs themselves are checked, built and published again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

from expectations import QualityReport, run_landing, run_publishing
from ingestion.run import ALL_SOURCES, ingest
from ingestion.schema import SourceName
from warehouse import servers, simulation
from warehouse.build_parts import build_in_parts
from warehouse.classify import classify_compiled
from warehouse.core.database import open_warehouse
from warehouse.core.disk import name_full_disk
from warehouse.core.errors import QualityFailure, WarehouseError
from warehouse.core.locks import writer_lock
from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.replace import TableName
from warehouse.core.settings import CATALOG, PROJECT_ROOT, Settings
from warehouse.dbt import run_dbt
from warehouse.deleted_rows import rewrite_if_due
from warehouse.exports import current_exports, export_configured
from warehouse.privacy import access_audit
from warehouse.publish import ACCOUNTS, is_current, publish, publish_accounts
from warehouse.report import RunReport, store_steps
from warehouse.site import build_site

_SOURCE_OF: dict[str, SourceName] = {"postgres": "oltp", "mongodb": "mongodb", "kafka": "stream"}
"""Embedded server → the source it is."""

MODEL_FOLDERS = ("models", "macros", "seeds", "snapshots", "tests/dbt")
CHECK_FOLDERS = ("expectations", "ingestion/sources")
"""What the expectations of both borders are made of."""

BuildState = dict[str, str | None]
"""What a build was made of: its newest load, digests of models and checks, the target."""


def refresh(settings: Settings, *, full: bool = False, progress: Progress = silent) -> RunReport:
    """Bring the warehouse up to date and publish it.

    Args:
        full: compare every row with its source, rebuild every model.

    Raises:
        WarehouseError: naming the step that failed, what was kept and what to do. The run report is saved all the same.
    """
    report = RunReport.start()
    with writer_lock(settings, "refresh"):
        try:
            _sequence(settings, report, full, progress)
        except WarehouseError as error:
            report.finish(name_full_disk(error, settings))
            raise
        else:
            report.finish()
        finally:
            if report.status == "running":
                report.status = "failed"
            report.save(settings)
    return report


def _sequence(settings: Settings, report: RunReport, full: bool, progress: Progress) -> None:
    with report.step("sources") as detail:
        missing: list[servers.ServerMissing] = []
        endpoints = servers.up(settings, progress=_named("sources", progress), on_missing=missing.append)
        detail["embedded"] = endpoints.postgres_admin_uri is not None
        without = {_SOURCE_OF[error.server]: error for error in missing}
        for source, error in without.items():
            progress(f"sources: {error.what}; {source} is read from file drops alone ({error.todo})")
        if without:
            detail["from_drops_alone"] = sorted(without)
    if endpoints.postgres_admin_uri and endpoints.mongodb_admin_uri and not without:
        with report.step("simulate") as detail:
            filled = simulation.fill(settings, endpoints, progress=_named("simulate", progress))
            detail["simulated_today"] = str(filled.current_date)

    with report.step("ingest") as detail:
        landed = ingest(
            settings,
            endpoints,
            run_id=report.run_id,
            sources=[source for source in ALL_SOURCES if source not in without],
            full=full,
            progress=_named("ingest", progress),
        )
        detail.update(landed.to_dict())
    with open_warehouse(settings) as connection:
        access_audit.land_own(connection, settings)
    state = _build_state(settings)
    unchanged = not full and landed.landed_rows == 0 and _saved_state(settings) == state
    settled = unchanged and is_current(settings)  # what readers have has passed all that follows
    with report.step("landing expectations") as detail:
        schemas = _only_accounts(detail) if settled else None
        quality = run_landing(settings, progress=_named("landing expectations", progress), schemas=schemas)
        _demand(quality, detail)
    with report.step("freshness") as detail:
        result = run_dbt(settings, ["source", "freshness"], progress=_named("freshness", progress))
        detail.update(result.counts)

    with report.step("build") as detail:
        _build(settings, detail, state, unchanged=unchanged, full=full, progress=_named("build", progress))
    with report.step("publishing expectations") as detail:
        if settled:
            _only_accounts(detail)  # which have no expectations at this border
        else:
            _demand(run_publishing(settings, progress=_named("publishing expectations", progress)), detail)
    with report.step("publish") as detail:
        _publish(settings, detail, settled=settled, progress=_named("publish", progress))
    with report.step("site") as detail:
        if not unchanged:
            run_dbt(settings, ["docs", "generate", "--static"], progress=_named("site", progress))
        # the page exists only if this, the last step, completes
        finished = report.to_dict() | {"status": "completed"}
        detail["path"] = str(build_site(settings, _named("site", progress), run=finished))
    store_steps(settings, report)


def _only_accounts(detail: dict[str, Any]) -> Collection[str]:
    """A step for which nothing is new but the accounts of the runs: the schemas that hold them."""
    detail.update(status="unchanged", selected=", ".join(ACCOUNTS))
    return ACCOUNTS


def _build(
    settings: Settings, detail: dict[str, Any], state: BuildState, *, unchanged: bool, full: bool, progress: Progress
) -> None:
    """Run dbt as far as it is needed.

    Incremental models compare what has landed with what they hold. That the code, a seed or a var has changed they
    cannot see: then everything is rebuilt, as it is after a rebuild that failed half-way.
    """
    if unchanged:
        _only_accounts(detail)
        result = run_dbt(settings, ["build", "--select", "path:models/ops"], progress=progress)
    else:
        built = _saved_state(settings)
        full = full or any(built.get(name) != state[name] for name in ("models", "target"))
        detail["mode"] = "full" if full else "incremental"
        state_file = Home.of(settings).build_state
        state_file.write_text(json.dumps({} if full else built | {"newest_load": None}))
        if full:
            result = run_dbt(settings, ["build", "--full-refresh"], progress=progress)
        else:
            result = build_in_parts(settings, "build", progress=progress)
            detail["parts"] = result.parts
        classification = classify_compiled(settings)
        classification.demand()
        if rewritten := rewrite_if_due(settings):
            detail["file"] = rewritten
        detail["classified_columns"] = classification.columns
        state_file.write_text(json.dumps(state))
    detail.update(result.counts)
    if result.warned:
        detail["warned"] = result.warned


def _publish(settings: Settings, detail: dict[str, Any], *, settled: bool, progress: Progress) -> None:
    current = current_exports(settings) if settled else set()
    accounts: Collection[TableName] = ()
    if settled:
        _only_accounts(detail)
        accounts = publish_accounts(settings)
        detail["tables"] = len(accounts)
    else:
        published = publish(settings, progress)
        detail.update(tables=len(published.tables), rows=sum(published.tables.values()), bytes=published.bytes)
    exports = export_configured(settings, progress, only=accounts, current=current)
    detail["exports"] = [item.to_dict() for item in exports]


def _saved_state(settings: Settings) -> BuildState:
    """What the last build was made of, or nothing."""
    file = Home.of(settings).build_state
    saved: BuildState = json.loads(file.read_text()) if file.exists() else {}
    return saved


def _build_state(settings: Settings) -> BuildState:
    """The newest load that brought anything, and digests of everything that dbt and the expectations are made of."""
    with open_warehouse(settings, read_only=True) as connection:
        row = connection.execute(
            f"select max(load_id) from {CATALOG}.raw_ops.load_manifest where landed_rows + deleted_rows > 0"
        ).fetchone()
    return {
        "newest_load": row[0] if row else None,
        "models": _digest("dbt_project.yml", *MODEL_FOLDERS),
        "checks": _digest(*CHECK_FOLDERS),
        "target": settings.dbt_target,
    }


def _digest(*places: str) -> str:
    digest = hashlib.sha256()
    for place in places:
        folder = PROJECT_ROOT / place
        found = [folder] if folder.is_file() else sorted(folder.rglob("*"))
        for path in found:
            if path.suffix in {".sql", ".yml", ".csv", ".md", ".py"}:
                digest.update(str(path.relative_to(PROJECT_ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _demand(quality: QualityReport, detail: dict[str, Any]) -> None:
    detail.update({"evaluated": quality.evaluated, "failed": len(quality.failed)})
    if quality.failed:
        first = "; ".join(f"{item.suite}: {item.expectation}({item.column})" for item in quality.failed[:5])
        raise QualityFailure(
            f"{len(quality.failed)} of {quality.evaluated} expectations failed: {first}",
            kept="everything landed; the published warehouse is the one before this run",
            todo="the data docs on the site name every expectation; correct the source or the rule, then refresh again",
        )


def _named(step: str, progress: Progress) -> Progress:
    return lambda text: progress(f"{step}: {text}")
