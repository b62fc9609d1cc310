"""One database per role, holding what that role may see and nothing else.

Made from the published copy by roles.yml and the classification, encrypted under a key of its own, swapped in whole.
Hiding is not left to whoever opens it: a column that a role does not see is not in its file. Nor is a customer under a
legal hold (GDPR 18): their facts count, as those of the member `-1`, and no dimension has them. Devices and cards that
only they have paid with go the same way.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
from filelock import FileLock

from warehouse.core.database import attach, blank_connection, lock_down, open_published
from warehouse.core.errors import ConfigurationError, WarehouseError
from warehouse.core.keys import ensure_file_key, file_key
from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.replace import TableName
from warehouse.core.settings import CATALOG, Settings
from warehouse.privacy.audit import record
from warehouse.privacy.holds import restricted
from warehouse.privacy.members import IDENTIFYING, without_person
from warehouse.privacy.ocsf import Activity, Actor, Resource
from warehouse.privacy.pseudonyms import pseudonymiser
from warehouse.privacy.roles import ROLES_FILE, Policy, Relation, Role, load_policy, relations

_NEW = "role_export"
LOCK_SECONDS = 600
UNKNOWN = "-1"
"""The member that stands for whoever is not known."""


@dataclass(frozen=True)
class ExportReport:
    """One role's export."""

    role: str
    tables: dict[str, int]
    """`public.fct_sales` → rows."""
    plain: int
    """Columns as they are."""
    masked: int
    """Columns that are there and empty."""
    left_out: int
    """Columns of the published copy that the role does not see."""
    bytes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "role": self.role,
            "tables": len(self.tables),
            "rows": sum(self.tables.values()),
            "plain": self.plain,
            "masked": self.masked,
            "left_out": self.left_out,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 2),
        }


def classified(settings: Settings) -> list[Relation]:
    """Tables and the classes of their columns, from the manifest of the last build.

    Raises:
        ConfigurationError: there is no manifest, so nothing has a class and no role may see anything.
    """
    try:
        return relations(_manifest(settings))
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        raise ConfigurationError(
            "there is no usable dbt manifest, so no column has a class and no role may see one",
            kept="the exports made before",
            todo="run `warehouse build`, then this again",
        ) from None


def export_role(
    settings: Settings, name: str, progress: Progress = silent, *, only: Collection[TableName] | None = None
) -> ExportReport:
    """Make a role's export from the published copy, and put it in place of the old one.

    Args:
        only: these tables, in a copy of the old export: of the one that :func:`current_exports` named before they
            changed. What the old ones held is left in the file.

    Raises:
        ConfigurationError: there is no such role, nothing is published, or no column has a class.
        WarehouseError: it could not be written; the old one stays.
    """
    policy = load_policy()
    role, stamp = policy.role(name), _stamp(settings)
    known = {(relation.schema, relation.name): relation for relation in classified(settings)}
    home, started = Home.of(settings), time.perf_counter()
    target = home.role_export(name)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    ensure_file_key(settings, key_name(name))
    with FileLock(target.with_suffix(".lock"), timeout=LOCK_SECONDS, mode=0o600):
        new = target.with_name(target.name + ".new")
        new.unlink(missing_ok=True)
        try:
            if only is not None:
                shutil.copy(target, new)
            with open_published(settings, locked_down=False) as connection:
                attach(connection, new, _NEW, file_key(settings, key_name(name)))
                copy = _Copy(connection, policy, role, _restrict(connection, settings))
                for schema, table, columns in _published(connection):
                    if only is not None:
                        if (schema, table) not in only:
                            continue
                        connection.execute(f'drop table if exists {_NEW}."{schema}"."{table}"')
                    progress(f"{name}: {schema}.{table}")
                    copy.table(known.get((schema, table), Relation(schema, table, {})), columns)
                connection.execute(f"create schema if not exists {_NEW}.public")
                connection.execute(f"detach {_NEW}")
            new.chmod(0o600)
            new.replace(target)
            target.with_suffix(".stamp").write_text(stamp, encoding="ascii")
        except (duckdb.Error, OSError) as error:
            raise WarehouseError(
                f"the export of {name} could not be written: {type(error).__name__}",
                kept="the export made before, if there is one",
                todo="look for a full disk or a row filter that does not fit its table; then run this again",
            ) from None
        finally:
            new.unlink(missing_ok=True)
            new.with_name(new.name + ".wal").unlink(missing_ok=True)
    record(
        settings,
        Activity.ROLE_EXPORT,
        actor=Actor.current(),
        outcome="success",
        resources=[Resource("role", name), Resource("key", key_name(name)), Resource("key", "published")],
        rows=sum(copy.rows.values()),
    )
    seconds = time.perf_counter() - started
    return ExportReport(name, copy.rows, copy.plain, copy.masked, copy.left_out, target.stat().st_size, seconds)


def export_configured(
    settings: Settings, progress: Progress = silent, *, only: Collection[TableName] = (), current: Collection[str] = ()
) -> list[ExportReport]:
    """Make the exports of ROLE_EXPORTS after a publish; in those that were `current` before it, `only` these tables."""
    return [
        export_role(settings, name, progress, only=only if name in current else None)
        for name in settings.role_exports.split(",")
        if name
    ]


def current_exports(settings: Settings) -> set[str]:
    """The roles whose exports are of what is published now, under the roles, classes and holds of now."""
    return {name for name in settings.role_exports.split(",") if name and _is_current(settings, name)}


def _is_current(settings: Settings, name: str) -> bool:
    export = Home.of(settings).role_export(name)
    stamp = export.with_suffix(".stamp")
    return export.exists() and stamp.exists() and stamp.read_text() == _stamp(settings)


def remove_exports(settings: Settings) -> int:
    """Delete every role's export; they are made again when they are asked for. Returns how many files went.

    One that is being made is waited for: it may know less than the next one will.
    """
    folder = Home.of(settings).role_export("any").parent
    removed = 0
    for stem in sorted({path.name.partition(".")[0] for path in folder.glob("*.duckdb*")} if folder.is_dir() else ()):
        with FileLock(folder / f"{stem}.lock", timeout=LOCK_SECONDS, mode=0o600):
            (folder / f"{stem}.stamp").unlink(missing_ok=True)
            for path in sorted(folder.glob(f"{stem}.duckdb*")):
                path.unlink()
                removed += 1
    return removed


def renew_exports(settings: Settings, progress: Progress = silent) -> None:
    """After a hold began or ended: no export may tell what was so before. Those of ROLE_EXPORTS are made at once.

    Raises:
        ConfigurationError, WarehouseError: one could not be made. The old ones are gone all the same.
    """
    remove_exports(settings)
    if Home.of(settings).published.exists():
        export_configured(settings, progress)


@contextmanager
def open_export(settings: Settings, name: str, progress: Progress = silent) -> Iterator[duckdb.DuckDBPyConnection]:
    """A role's export, made first when there is none or the published copy, roles, classes or holds have changed since.

    Read-only and locked down: no file, network, setting or extension can be reached from SQL.

    Raises:
        ConfigurationError: there is no such role, nothing is published, or no column has a class.
        WarehouseError: it could not be written.
    """
    home = Home.of(settings)
    load_policy().role(name)
    if not _is_current(settings, name):
        export_role(settings, name, progress)
    connection = blank_connection(settings)
    try:
        attach(connection, home.role_export(name), CATALOG, file_key(settings, key_name(name)), read_only=True)
        connection.execute(f"USE {CATALOG}.public")
        lock_down(connection)
        yield connection
    finally:
        connection.close()


def key_name(role: str) -> str:
    """The key of a role's export."""
    return f"role_{role}"


class _Copy:
    """Copies what one role sees, table by table."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, policy: Policy, role: Role, restricts: bool = False
    ) -> None:
        """`restricts`: whether the connection has the table of :func:`_restrict`."""
        self._connection, self._policy, self._role, self._restricts = connection, policy, role, restricts
        self.rows: dict[str, int] = {}
        self.plain = self.masked = self.left_out = 0

    def table(self, relation: Relation, columns: Mapping[str, str]) -> None:
        """Copy the columns of one published table that the role sees; none: not the table either."""
        views = {column: self._policy.view(self._role, relation, column.lower()) for column in columns}
        hidden = without_person(columns, _is_restricted, UNKNOWN) if self._restricts else {}
        shown = [
            f'{hidden.get(column, _quoted(column))} as "{column}"'
            if view == "plain"
            else f'cast(null as {columns[column]}) as "{column}"'
            for column, view in views.items()
            if view is not None
        ]
        self.left_out += len(columns) - len(shown)
        if not shown:
            return
        filter_ = self._role.rows.get(relation.qualified)
        conditions = [f"({filter_.when})"] if filter_ else []
        if hidden and relation.name.startswith("dim_"):
            theirs = " or ".join(_is_restricted(name) for name in IDENTIFYING if name in columns)
            conditions.append(f"not coalesce({theirs}, false)")
        original = f'{CATALOG}."{relation.schema}"."{relation.name}"'
        self._connection.execute(f'create schema if not exists {_NEW}."{relation.schema}"')
        created = self._connection.execute(
            f'create table {_NEW}."{relation.schema}"."{relation.name}" as '
            f"select {', '.join(shown)} from {original} where {' and '.join(conditions) or 'true'}"
        ).fetchone()
        self.rows[relation.qualified] = int(created[0]) if created else 0
        self.plain += sum(view == "plain" for view in views.values())
        self.masked += sum(view == "masked" for view in views.values())


def _restrict(connection: duckdb.DuckDBPyConnection, settings: Settings) -> bool:
    """Make `restricted_identifier` of the published copy's restricted customers; False when there is none.

    It holds their ids and keys, and those of devices and payment methods that nobody else has paid with.
    """
    pseudonyms = restricted(settings)
    if not pseudonyms:
        return False
    pseudonym = pseudonymiser(settings)
    tables = {f'{CATALOG}."{schema}"."{name}"': columns for schema, name, columns in _published(connection)}
    customers = [place for place, columns in tables.items() if {"customer_id", "customer_key"} <= columns.keys()]
    connection.execute("create or replace temp table restricted_identifier (identifier varchar)")

    def add(column: str, place: str, by: str) -> None:
        theirs = f"select {column} from {place} where {_is_restricted(by)}"
        connection.execute(f"insert into restricted_identifier {theirs}")

    for place in customers:
        ids = connection.execute(f"select distinct customer_id from {place} where customer_id is not null").fetchall()
        found = [[name] for (name,) in ids if pseudonym(name) in pseudonyms]
        if not found:
            continue
        connection.executemany("insert into restricted_identifier values (?)", found)
        for key in ("customer_key", "customer_version_key"):
            if key in tables[place]:
                add(key, place, "customer_id")
    for kind in ("device", "payment_method"):
        key, name = f"{kind}_key", f"{kind}_id"
        uses = " union all ".join(
            f"select {key} as key, customer_key from {place}"
            for place, columns in tables.items()
            if {key, "customer_key"} <= columns.keys()
        )
        if not uses:
            continue
        connection.execute(f"""
            insert into restricted_identifier
            select key from ({uses}) where starts_with(key, '-') is false and starts_with(customer_key, '-') is false
            group by key having bool_and({_is_restricted("customer_key")})
        """)
        for place, columns in tables.items():
            if {key, name} <= columns.keys():
                add(name, place, key)
    return True


def _quoted(column: str) -> str:
    return f'"{column}"'


def _is_restricted(column: str) -> str:
    return f'"{column}"::varchar in (select identifier from restricted_identifier)'


def _published(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, dict[str, str]]]:
    tables: dict[tuple[str, str], dict[str, str]] = {}
    for schema, table, column, type_ in connection.execute(
        """
        select schema_name, table_name, column_name, data_type
        from duckdb_columns()
        where database_name = ? and not internal
        order by schema_name, table_name, column_index
        """,
        [CATALOG],
    ).fetchall():
        tables.setdefault((schema, table), {})[column] = type_
    return [(schema, table, columns) for (schema, table), columns in tables.items()]


def _manifest(settings: Settings) -> dict[str, Any]:
    path = Home.of(settings).dbt_target / "manifest.json"
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return manifest


def _stamp(settings: Settings) -> str:
    """Changes with the published copy, the roles, the classes and who is restricted."""
    home = Home.of(settings)
    if not home.published.exists():
        raise ConfigurationError("nothing has been published yet", todo="run `make refresh` first")
    state = home.published.stat()
    classes = [(relation.qualified, sorted(relation.columns.items())) for relation in classified(settings)]
    held = sorted(restricted(settings))
    roles = hashlib.sha256(ROLES_FILE.read_bytes() + repr((classes, held)).encode()).hexdigest()
    return f"{state.st_mtime_ns} {state.st_ino} {roles}"
