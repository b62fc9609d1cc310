"""One database per role, holding what that role may see and nothing else.

Made from the published copy by roles.yml and the classification, encrypted under a key of its own, swapped in whole.
Hiding is not left to whoever opens it: a column that a role does not see is not in its file.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
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
from warehouse.core.settings import CATALOG, Settings
from warehouse.privacy.audit import record
from warehouse.privacy.ocsf import Activity, Actor, Resource
from warehouse.privacy.roles import ROLES_FILE, Policy, Relation, Role, load_policy, relations

_NEW = "role_export"
LOCK_SECONDS = 600


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


def export_role(settings: Settings, name: str, progress: Progress = silent) -> ExportReport:
    """Make a role's export from the published copy, and put it in place of the old one.

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
            with open_published(settings, locked_down=False) as connection:
                attach(connection, new, _NEW, file_key(settings, key_name(name)))
                copy = _Copy(connection, policy, role)
                for schema, table, columns in _published(connection):
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


def export_configured(settings: Settings, progress: Progress = silent) -> list[ExportReport]:
    """Make the exports of ROLE_EXPORTS, after a publish."""
    return [export_role(settings, name, progress) for name in settings.role_exports.split(",") if name]


@contextmanager
def open_export(settings: Settings, name: str, progress: Progress = silent) -> Iterator[duckdb.DuckDBPyConnection]:
    """A role's export, made first when there is none or the published copy, roles or classes have changed since.

    Read-only and locked down: no file, network, setting or extension can be reached from SQL.

    Raises:
        ConfigurationError: there is no such role, nothing is published, or no column has a class.
        WarehouseError: it could not be written.
    """
    home = Home.of(settings)
    load_policy().role(name)
    stamp = home.role_export(name).with_suffix(".stamp")
    if not home.role_export(name).exists() or not stamp.exists() or stamp.read_text() != _stamp(settings):
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

    def __init__(self, connection: duckdb.DuckDBPyConnection, policy: Policy, role: Role) -> None:
        self._connection, self._policy, self._role = connection, policy, role
        self.rows: dict[str, int] = {}
        self.plain = self.masked = self.left_out = 0

    def table(self, relation: Relation, columns: Mapping[str, str]) -> None:
        """Copy the columns of one published table that the role sees; none: not the table either."""
        views = {column: self._policy.view(self._role, relation, column.lower()) for column in columns}
        shown = [
            f'"{column}"' if view == "plain" else f'cast(null as {columns[column]}) as "{column}"'
            for column, view in views.items()
            if view is not None
        ]
        self.left_out += len(columns) - len(shown)
        if not shown:
            return
        filter_ = self._role.rows.get(relation.qualified)
        original = f'{CATALOG}."{relation.schema}"."{relation.name}"'
        self._connection.execute(f'create schema if not exists {_NEW}."{relation.schema}"')
        created = self._connection.execute(
            f'create table {_NEW}."{relation.schema}"."{relation.name}" as '
            f"select {', '.join(shown)} from {original} where {filter_.when if filter_ else 'true'}"
        ).fetchone()
        self.rows[relation.qualified] = int(created[0]) if created else 0
        self.plain += sum(view == "plain" for view in views.values())
        self.masked += sum(view == "masked" for view in views.values())


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
    """Changes with the published copy, the roles and the classes."""
    home = Home.of(settings)
    if not home.published.exists():
        raise ConfigurationError("nothing has been published yet", todo="run `make refresh` first")
    state = home.published.stat()
    classes = [(relation.qualified, sorted(relation.columns.items())) for relation in classified(settings)]
    roles = hashlib.sha256(ROLES_FILE.read_bytes() + repr(classes).encode()).hexdigest()
    return f"{state.st_mtime_ns} {state.st_ino} {roles}"
