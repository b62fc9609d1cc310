"""Exercises: an incident injected into a copy of the home, found, measured, answered and written down.

| scenario | what is injected | who is affected |
| --- | --- | --- |
| leaked_key | somebody uses the token and vault keys from elsewhere | everybody of whom the vault holds a value |
| stolen_export | a role's export leaves the building | everybody who can be told apart in it |
| poisoned_source | a partner drops a file with hostile rows | everybody the rows that landed are about |

Each ends the same way: the timeline (audit log and detections), the 72-hour deadline, the entry in the breach register,
and new keys with every join as it was. The real home gains the entry, the list of affected (in the vault) and its own
audit record; its data and keys are not touched.
"""

from __future__ import annotations

import gzip
import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ingestion.erasure import subject_sql
from ingestion.lake import Lake, lake_folder
from ingestion.raw import raw_table_names
from ingestion.replay import replay
from ingestion.run import ingest
from ingestion.schema import SourceName, tables
from ingestion.versions import loads_sql
from warehouse.core.database import attach, blank_connection, open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import ConfigurationError, DropsRefused, WarehouseError
from warehouse.core.keys import create_missing_keys, file_key
from warehouse.core.locks import writer_lock
from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import CATALOG, Settings
from warehouse.exports import export_role, key_name
from warehouse.file_keys import rotate_file_key
from warehouse.privacy.alerts import Watch
from warehouse.privacy.audit import events, record, verify
from warehouse.privacy.breaches import Breach, deadline_of, register, store_affected
from warehouse.privacy.ocsf import Activity, Actor, Resource, file_resource
from warehouse.privacy.vault import ALIAS, attach_vault
from warehouse.rotation import Receipt, rotate_token_key

LEFT_OUT = ("servers", "drops", "spill", "drills", "site", "logs", "alerts", "breaches")
"""What the copy does without: servers run elsewhere, the rest is made anew or is none of its business."""

_THIEF = Actor("uid-66666", "66666", "unknown-host", "198.51.100.66", 666)


@dataclass(frozen=True)
class Finding:
    """What an injected incident turned out to be."""

    nature: str
    subjects: frozenset[str]
    records: int
    categories: tuple[str, ...]
    consequences: str
    measures: tuple[str, ...]
    keys: tuple[str, ...]
    """File keys to rotate, beside that of the tokens."""
    expected: frozenset[str]
    """Detections, at least one of which must have fired."""


@dataclass(frozen=True)
class DrillReport:
    """What an exercise showed."""

    scenario: str
    breach: Breach
    seconds_to_detect: float
    receipt: Receipt
    rotated: tuple[str, ...]
    copy: Path | None
    """Where the copy lies, when it was kept."""

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "scenario": self.scenario,
            "breach": self.breach.to_dict(),
            "seconds_to_detect": round(self.seconds_to_detect, 2),
            "receipt": self.receipt.to_dict(),
            "rotated": list(self.rotated),
            "copy": str(self.copy) if self.copy else None,
        }


def drill(settings: Settings, scenario: str, *, keep: bool = False, progress: Progress = silent) -> DrillReport:
    """Run one exercise. The caller holds the writer's lock of the real home.

    Args:
        settings: of the real home.
        scenario: one of SCENARIOS.
        keep: leave the copy for a closer look.
        progress: told what happens.

    Raises:
        ConfigurationError: there is no such scenario, or the home lacks what it needs.
        WarehouseError: no detection saw the incident, or a join broke: the exercise has failed.
    """
    if scenario not in SCENARIOS:
        raise ConfigurationError(f"there is no scenario {scenario!r}", todo=f"use one of {', '.join(SCENARIOS)}")
    incident = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{scenario}"
    place = Home.of(settings).root / "drills" / incident
    try:
        progress("copying the home")
        copy = _copied(settings, place)
        with writer_lock(copy, "drill", rotates=True):
            report = _exercise(settings, copy, scenario, incident, progress)
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)
    return replace(report, copy=place if keep else None)


def _exercise(settings: Settings, copy: Settings, scenario: str, incident: str, progress: Progress) -> DrillReport:
    watch = Watch(copy)
    watch.look()  # what was before is not of this incident
    begun = datetime.now(UTC)
    progress(f"injecting {scenario}")
    found = SCENARIOS[scenario](copy, progress)
    progress("looking for it")
    alerts = [alert for alert in watch.look().new if alert.detection in found.expected]
    if not alerts:
        raise WarehouseError(
            f"no detection saw {scenario}: the exercise has failed",
            kept="the real home, untouched",
            todo="find out why before it happens: `warehouse privacy detect`, docs/incidents.md",
        )
    detected = datetime.now(UTC)
    progress("new keys")
    receipt = rotate_token_key(copy, progress)
    rotated = [rotate_file_key(copy, name, progress).key for name in found.keys if _exists(copy, name)]
    for name in (receipt.key, *rotated):
        record(
            copy, Activity.KEY_ROTATE, actor=Actor.current(), outcome="success", resources=[Resource("key", name)]
        )  # fmt: skip
    breach = Breach(
        incident=incident,
        exercise=True,
        nature=found.nature,
        detected_at=detected.isoformat(timespec="seconds"),
        deadline=deadline_of(detected).isoformat(timespec="seconds"),
        subjects=store_affected(settings, incident, found.subjects),
        records=found.records,
        categories=found.categories,
        consequences=found.consequences,
        measures=(*found.measures, f"new keys: {', '.join((receipt.key, *rotated))}; {receipt.broken} joins broken"),
        audit_head=verify(settings).head,
        reason="an exercise on a copy: nobody is to be notified",
        timeline=tuple(_timeline(copy, begun, [vars(alert) for alert in alerts])),
    )
    register(settings, breach)
    return DrillReport(scenario, breach, (detected - begun).total_seconds(), receipt, tuple(rotated), None)


def _timeline(copy: Settings, begun: datetime, alerts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was recorded since the injection and what the detections said, in order. Names and counts only."""
    since = int((begun - timedelta(seconds=1)).timestamp() * 1000)
    with Home.of(copy).audit.open("rb") as log:
        told = [
            {
                "at": datetime.fromtimestamp(event["time"] / 1000, UTC).isoformat(timespec="milliseconds"),
                "what": event["metadata"]["event_code"],
                "who": event["actor"]["user"]["name"],
                "from": event["src_endpoint"]["ip"],
                "outcome": event["status"],
                "resources": [item["name"] for item in event["resources"]],
            }
            for event in events(log)
            if event["time"] >= since
        ]
    told += [
        {"at": str(alert["time"]), "what": f"alert: {alert['detection']}", "severity": alert["severity"],
         "who": alert["user"]}
        for alert in alerts
    ]  # fmt: skip
    return sorted(told, key=lambda item: str(item["at"]))


def _copied(settings: Settings, place: Path) -> Settings:
    home, lake = Home.of(settings), lake_folder(settings)
    if not isinstance(lake, Path):
        raise ConfigurationError(
            "a lake on S3 is not copied for an exercise", todo="run the exercise on an installation with a lake on disk"
        )
    if not home.warehouse.exists():
        raise ConfigurationError("there is nothing to exercise with yet", todo="run `make refresh` first")
    shutil.copytree(home.root, place, ignore=lambda folder, _: LEFT_OUT if Path(folder) == home.root else ())
    if lake != home.lake:
        shutil.copytree(lake, place / "lake", dirs_exist_ok=True)
    for name in ("warehouse.lock", "warehouse.holder.json"):
        (place / name).unlink(missing_ok=True)
    copy = settings.model_copy(
        update={
            "warehouse_home": place, "lake_uri": None, "drops_uri": None, "drops_settle_seconds": 0.0,
            # an exercise wakes nobody
            "alert_webhook": None, "alert_syslog": None,
        }
    )  # fmt: skip
    create_missing_keys(copy)
    return copy


def _exists(copy: Settings, name: str) -> bool:
    home = Home.of(copy)
    return {"published": home.published.exists(), "vault": home.vault.exists()}.get(name, True)


# --- scenarios -------------------------------------------------------------------------------------------------------


def _leaked_key(copy: Settings, progress: Progress) -> Finding:
    keys = [Resource("key", name) for name in ("vault", "token_v1")]
    record(copy, Activity.KEY_USE, actor=_THIEF, outcome="success", resources=keys)
    record(copy, Activity.QUERY, actor=_THIEF, outcome="success", resources=keys, statement="unknown")
    with open_warehouse(copy) as connection:
        attach_vault(connection, copy)
        held = connection.execute(
            f"select distinct subject from {ALIAS}.main.sealed_entry where subject is not null"
        ).fetchall()
        records = connection.execute(f"select count(*) from {ALIAS}.main.sealed_entry").fetchone()
    return Finding(
        nature="the keys of the vault and of pseudonyms were used from a host that has no need of them",
        subjects=frozenset(str(subject) for (subject,) in held),
        records=int(records[0]) if records else 0,
        categories=("names", "e-mail addresses", "telephone numbers", "dates of birth", "addresses", "free text"),
        consequences="whoever also has a copy of the vault can read it; tokens can be guessed for known values",
        measures=("access of the account withdrawn", "backups under the old keys destroyed or sealed"),
        keys=("vault", "lake", "published", "roles"),
        expected=frozenset({"personal_key_used_elsewhere"}),
    )


def _stolen_export(copy: Settings, progress: Progress) -> Finding:
    role = "fraud_analyst"
    report = export_role(copy, role, progress)
    name = key_name(role)
    stolen = Home.of(copy).role_export(role)
    rows = sum(report.tables.values())
    record(
        copy, Activity.EXPORT, actor=_THIEF, outcome="success",
        resources=[Resource("role", role), Resource("key", name), Resource("file", "usb/export.duckdb")],
        rows=max(rows, 1_000_000),
    )  # fmt: skip
    connection = blank_connection(copy)
    try:
        attach(connection, stolen, "stolen", file_key(copy, name), read_only=True)
        tables = connection.execute(
            "select schema_name, table_name, column_name from duckdb_columns() "
            "where database_name = 'stolen' and column_name in ('customer_id', 'merchant_id')"
        ).fetchall()
        asked = " union ".join(
            f'select "{column}"::varchar as subject from stolen."{schema}"."{table}"'
            for schema, table, column in tables
        )
        subjects = connection.execute(
            f"select subject from ({asked}) where subject is not null and subject not like '-%'"
        ).fetchall()
    finally:
        connection.close()
    return Finding(
        nature=f"the export of the role {role} was copied to a removable medium",
        subjects=frozenset(str(subject) for (subject,) in subjects),
        records=rows,
        categories=("payments", "identifiers of customers, devices and instruments", "truncated card numbers"),
        consequences="with the export's key, payments of a pseudonymous customer can be followed; no name is in it",
        measures=("access of the account withdrawn", "the export's key destroyed"),
        keys=("roles", "published"),
        expected=frozenset({"bulk_export", "export_to_external_place"}),
    )


def _poisoned_source(copy: Settings, progress: Progress) -> Finding:
    folder = Home.of(copy).drops / "mongodb" / "customer_feedback"
    folder.mkdir(parents=True)
    known_loads = {load.load_id for load in Lake(copy).sealed_loads("mongodb", "customer_feedback")}
    with open_warehouse(copy) as connection:
        known = connection.execute(
            "select distinct customer_id from raw_oltp.customer order by customer_id limit 50"
        ).fetchall()
    rows = [
        {
            "_id": {"$oid": uuid.uuid4().hex[:24]}, "customer_id": customer, "rating": 1, "cvv": "123",
            "comment": "'; drop table raw_oltp.customer; --", "channel": "<script>alert(1)</script>",
            "../../keys/token_v1.key": {"$where": "sleep(1)"}, "created_at": {"$date": "2024-01-01T00:00:00Z"},
        }
        for (customer,) in known
    ]  # fmt: skip
    (folder / "poison.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    (folder / "bomb.jsonl.gz").write_bytes(gzip.compress(b"[" * 2**27))
    try:
        ingest(copy, Endpoints(None, None, None), run_id="drill", sources=("files",), progress=progress)
    except DropsRefused as error:
        record(
            copy, Activity.INGEST, actor=Actor.current(), outcome="failure", error=type(error).__name__,
            resources=[file_resource(f"drops/{label}") for label in error.labels],
        )  # fmt: skip
    progress("taking the load out")
    subjects = _take_out(copy, "mongodb", "customer_feedback", known_loads)
    return Finding(
        nature="a partner's drop carried hostile rows; a second file was a decompression bomb and was refused",
        subjects=subjects,
        records=len(rows),
        categories=("feedback",),
        consequences="wrong ratings of known customers; nothing was executed, nothing forbidden landed",
        measures=("the drop folder's account suspended", "the load taken out of lake and raw tables"),
        keys=("lake",),
        expected=frozenset({"drop_refused"}),
    )


def _take_out(copy: Settings, source: SourceName, name: str, known: set[str]) -> frozenset[str]:
    """Remove every load of a table that is not `known` from lake, vault and raw tables; whom its rows were about."""
    table, lake = tables(source)[name], Lake(copy)
    loads = [load for load in lake.sealed_loads(source, name) if load.load_id not in known]
    ids = [load.load_id for load in loads]
    with open_warehouse(copy) as connection:
        attach_vault(connection, copy)
        found = connection.execute(
            f"select distinct {subject_sql(table)} from ({loads_sql(connection, table, loads)})"
        ).fetchall()
        for raw in raw_table_names(table):
            connection.execute(
                f'delete from {CATALOG}.{table.raw_schema}."{raw}" where _load_id in (select unnest($ids))',
                {"ids": ids},
            )
        connection.execute(
            f"delete from {ALIAS}.main.sealed_entry where load_id in (select unnest($ids))", {"ids": ids}
        )
    for load_id in ids:
        lake.discard(source, name, load_id)
    replay(copy)
    return frozenset(str(subject) for (subject,) in found if subject is not None)


SCENARIOS: dict[str, Callable[[Settings, Progress], Finding]] = {
    "leaked_key": _leaked_key,
    "stolen_export": _stolen_export,
    "poisoned_source": _poisoned_source,
}
