"""The steps of an erasure. Each can be repeated; what is done is remembered in the vault, so that it can be resumed.

ledger → lake → warehouse → reports → published → backups → leftovers → proof → vault. The vault is last: its key is
what tells whom and what to look for. When it is destroyed, the receipt says what was proved.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from ingestion.compaction import replace_loads, settle_all
from ingestion.erasure import ROW_DOMAIN, SUBJECT_DOMAIN, touched_sql
from ingestion.lake import Lake
from ingestion.raw import create_raw_tables
from ingestion.schema import all_tables
from ingestion.versions import loads_sql
from warehouse.core.backups import ERASING, PART, as_home, backup_places, verify_contents, write_contents
from warehouse.core.database import open_warehouse
from warehouse.core.errors import ConfigurationError, WarehouseError
from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import CATALOG, PROJECT_ROOT, Settings
from warehouse.erasure.plan import Plan, mark_done, open_plan
from warehouse.erasure.receipt import Receipt, all_receipts, receipts_of, save_receipt
from warehouse.erasure.reports import rebuild_reports
from warehouse.erasure.warehouse_file import (
    LEDGER_NOW,
    changed_in_published,
    erase_from_warehouse,
    fill_ledger_now,
    ledger_entries,
)
from warehouse.exports import export_role, remove_exports
from warehouse.privacy.holds import demand_no_hold, settle_request
from warehouse.privacy.pseudonyms import subject_pseudonym
from warehouse.privacy.scan import ScanReport
from warehouse.privacy.scan_home import scan_home
from warehouse.privacy.subjects import canonical_sql, checked_subject
from warehouse.privacy.tokens import pseudonym, token_key
from warehouse.privacy.vault import ALIAS, UnknownSubject, open_vault, rewrite_vault
from warehouse.publish import publish, publish_tables

REMOVABLE = ("target", "logs", "runs", "site", "spill", "alerts")
"""Folders whose files may go when something of the person stands in them: all are made again."""


NOT_IN_BACKUPS = frozenset({"reports", "published", "backups"})
"""Steps for what a backup does not hold, or what is built anew when it has been restored."""


class ErasureIncomplete(WarehouseError):
    """Something of the person is still there. The vault's key was not destroyed, so that it can be looked for again."""

    exit_code = 14


def erase(settings: Settings, subject: str, ticket: str, progress: Progress = silent) -> Receipt:
    """Erase a customer from everything, prove it, destroy their key. The caller holds the writer's lock.

    Interrupted, the same call goes on where it was.

    Raises:
        UnknownSubject: neither the vault nor the warehouse knows them, and no erasure of theirs is recorded.
        OnHold: a legal hold restricts them; the erasure is noted and follows when it is released.
        ConfigurationError: the id is no customer's, or the target is not DuckDB.
        ErasureIncomplete: the proof found something.
        WarehouseError: a step failed.
    """
    canonical = checked_subject(subject)
    if settings.dbt_target != "duckdb":
        raise ConfigurationError(
            f"an erasure covers the DuckDB warehouse; the target is {settings.dbt_target}",
            todo="erase with DBT_TARGET=duckdb, then run the same ledger on the other warehouse (runbook: erasure)",
        )
    demand_no_hold(settings, canonical, wants_erasure=True)
    receipt = _erased(settings, subject, canonical, ticket, progress)
    home = Home.of(settings)
    for role in filter(None, settings.role_exports.split(",") if home.published.exists() else ()):
        if not home.role_export(role).exists():
            progress(f"erase: export of {role}")
            export_role(settings, role)  # from what was searched
    return receipt


def _erased(
    settings: Settings, subject: str, canonical: str, ticket: str, progress: Progress, *, backup: bool = False
) -> Receipt:
    """The steps; of a backup, those for what is in it."""
    if (unfinished := _unfinished(settings, canonical)) is not None:
        return _destroy(settings, canonical, unfinished, time.perf_counter())
    started = time.perf_counter()
    try:
        plan, done = open_plan(settings, subject, ticket)
    except UnknownSubject:
        if finished := receipts_of(settings, canonical):
            return finished[-1]
        raise
    receipt = Receipt(plan.id, subject_pseudonym(settings, canonical), plan.ticket, "begun", plan.begun_at)
    steps: dict[str, Callable[[Settings, Plan], dict[str, int]]] = {
        "ledger": write_ledger,
        "lake": erase_from_lake,
        "warehouse": erase_from_warehouse,
        "reports": rebuild_reports,
        "published": publish_again,
        "backups": erase_from_backups,
    }
    for name, step in steps.items():
        if name in done or (backup and name in NOT_IN_BACKUPS):
            continue
        progress(f"erase: {name}")
        receipt.steps[name] = step(settings, plan)
        mark_done(settings, plan, name)
    progress("erase: proof")
    report = prove(settings, plan)
    receipt.searched = report.to_dict()["searched"]
    receipt.searched_for = {
        "identifiers": len(plan.identifiers),
        "values": len(plan.values),
        "tokens": len(plan.tokens),
        "too_short": report.too_short,
        "shared_with_others": plan.shared,
    }
    receipt.left_out = report.left_out
    receipt.status = "proved"
    save_receipt(settings, receipt)
    progress("erase: vault")
    return _destroy(settings, canonical, receipt, started)


def write_ledger(settings: Settings, plan: Plan) -> dict[str, int]:
    """From here on nothing of theirs lands again."""
    key = token_key(settings)
    rows = [
        (
            None if subject is None else pseudonym(key, SUBJECT_DOMAIN, subject),
            source,
            table,
            None if row_key is None else pseudonym(key, ROW_DOMAIN, row_key),
        )
        for subject, source, table, row_key in ledger_entries(plan)
    ]
    with open_warehouse(settings) as connection:
        create_raw_tables(connection)
        connection.execute("begin")
        for row in rows:
            connection.execute(
                f"""
                insert into {CATALOG}.raw_ops.erasure_ledger
                    (subject_token, source, table_name, row_key_token, erased_at)
                select $1, $2, $3, $4, now() where not exists (
                    select 1 from {CATALOG}.raw_ops.erasure_ledger
                    where subject_token is not distinct from $1 and source is not distinct from $2
                        and table_name is not distinct from $3 and row_key_token is not distinct from $4
                )
                """,
                list(row),
            )
        connection.execute("commit")
    return {"entries": len(rows)}


def erase_from_lake(settings: Settings, plan: Plan) -> dict[str, int]:
    """Every load that holds a row of theirs is written anew without it."""
    lake = Lake(settings)
    rewritten = rows = 0
    with open_warehouse(settings, memory_limit=settings.memory_limit) as connection:
        settle_all(connection, settings, lake, silent)
        fill_ledger_now(connection, plan)
        for table in all_tables():
            touched = touched_sql(connection, table, LEDGER_NOW)
            if touched == "false":
                continue
            affected = []
            for load in lake.sealed_loads(table.source, table.name):
                found = connection.execute(
                    f"select count(*) from ({loads_sql(connection, table, [load])}) where {touched}"
                ).fetchone()
                if found and found[0]:
                    affected.append(load)
                    rows += int(found[0])
            if affected:
                replace_loads(connection, lake, table, affected, "true", LEDGER_NOW)
                rewritten += len(affected)
    return {"loads": rewritten, "rows": rows}


def publish_again(settings: Settings, plan: Plan) -> dict[str, int]:
    """Readers get a copy without them. Every role's export goes: none is made until the copy has been searched."""
    removed = remove_exports(settings)
    if not Home.of(settings).published.exists():
        return {"tables": 0, "exports_removed": removed}
    if plan.published_is_current:
        tables = publish_tables(settings, changed_in_published(settings, plan))
    else:
        tables = len(publish(settings).tables)
    return {"tables": tables, "exports_removed": removed}


def erase_from_backups(settings: Settings, plan: Plan) -> dict[str, int]:
    """Every backup is erased from as the home is: ledger, lake, warehouse, proof, vault. What is incomplete goes.

    Raises:
        WarehouseError: a backup is damaged or does not open: what it holds cannot be told.
        ErasureIncomplete: something of theirs is still in one.
    """
    erased = 0
    for place in backup_places(settings):
        if place.name.endswith(PART):
            shutil.rmtree(place)
            continue
        begun = place / ERASING
        if not begun.exists():  # in a backup that is being erased from, files are already other ones
            verify_contents(place)
            begun.touch()
        with as_home(settings, place) as inside, suppress(UnknownSubject):
            _erased(inside, plan.subject, plan.subject, plan.ticket, silent, backup=True)
            erased += 1
        write_contents(place)
        begun.unlink()
    return {"backups": erased}


def prove(settings: Settings, plan: Plan) -> ScanReport:
    """Search every byte and column for every identifier, value and token that was theirs alone.

    Files that are made again anyhow, and hold something, are removed first.

    Raises:
        ErasureIncomplete: something is left, or could not be searched.
    """
    report = scan_home(settings, plan.needles, patterns=False)
    if _remove_leftovers(settings, report):
        report = scan_home(settings, plan.needles, patterns=False)
    if report.findings or report.unopened:
        places = [str(item) for item in report.findings] + [
            f"not searched: {name} ({why})" for name, why in report.unopened.items()
        ]
        raise ErasureIncomplete(
            f"{len(report.findings)} places still hold something of the subject, {len(report.unopened)} could not be "
            f"searched: {'; '.join(places[:5])}",
            kept="the subject's key and the plan of the erasure; what is erased stays erased",
            todo="remove or repair what is named, then run the same command again",
        )
    return report


def _remove_leftovers(settings: Settings, report: ScanReport) -> int:
    home, removed = Home.of(settings), 0
    roots = [home.root / name for name in REMOVABLE] + [PROJECT_ROOT / name for name in ("target", "logs")]
    for finding in report.findings:
        for root in roots:
            path = root / finding.place
            if path.is_file() and path.resolve().is_relative_to(root.resolve()):
                path.unlink()
                removed += 1
    return removed


def _unfinished(settings: Settings, canonical: str) -> Receipt | None:
    """An erasure that was proved and whose key may still exist."""
    return next((item for item in reversed(receipts_of(settings, canonical)) if item.status == "proved"), None)


def _destroy(settings: Settings, canonical: str, receipt: Receipt, started: float) -> Receipt:
    """The subject's key, values and plan go, and the vault's file is written anew; then the receipt is complete."""
    with open_vault(settings, read_only=False) as vault:
        plan = vault.execute(f"select plan from {ALIAS}.main.erasure where subject = $1", [canonical]).fetchone()
        owners = [canonical]
        if plan is not None:
            places = vault.execute("select json_extract_string($1, '$.owned.location[*]')", [plan[0]]).fetchone()
            owners += [f"row|oltp.location|{place}" for place in (places[0] if places and places[0] else [])]
        vault.execute("begin")
        removed = vault.execute(
            f"delete from {ALIAS}.main.sealed_entry where owner in (select unnest($1::varchar[]))", [owners]
        ).fetchone()
        vault.execute(f"delete from {ALIAS}.main.subject_key where owner in (select unnest($1::varchar[]))", [owners])
        # the register of incidents keeps how many were affected, not who
        vault.execute(f"delete from {ALIAS}.main.incident_subject where {canonical_sql('subject')} = $1", [canonical])
        vault.execute(f"delete from {ALIAS}.main.erasure where subject = $1", [canonical])
        vault.execute("commit")
    settle_request(settings, canonical)
    rewrite_vault(settings)
    receipt.steps.setdefault("vault", {"values": int(removed[0]) if removed else 0, "keys": len(owners)})
    receipt.status = "complete"
    receipt.finished_at = datetime.now(UTC).isoformat(timespec="seconds")
    receipt.seconds = round(time.perf_counter() - started, 2)
    save_receipt(settings, receipt)
    return receipt


def verify_receipts(settings: Settings, subject: str | None = None) -> list[Receipt]:
    """Receipts whose signature holds, of one subject or of all. Raises WarehouseError for one that was changed."""
    return all_receipts(settings) if subject is None else receipts_of(settings, checked_subject(subject))
