"""Roles: every role, table and column is as roles.yml says, in the exports and in Snowflake's DDL."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlglot
import yaml
from sqlglot import exp
from typer.testing import CliRunner

from tests.conftest import MakeSettings, RecordFigure
from warehouse import exports
from warehouse.cli import context
from warehouse.cli.app import app
from warehouse.core.database import open_warehouse
from warehouse.core.errors import ConfigurationError, WarehouseError
from warehouse.core.keys import create_missing_keys, file_key
from warehouse.core.paths import Home
from warehouse.core.settings import CATALOG, PROJECT_ROOT, Settings
from warehouse.exports import current_exports, export_configured, export_role, key_name, open_export
from warehouse.privacy.audit import tail, verify
from warehouse.privacy.roles import ROLES_FILE, Relation, load_policy, relations
from warehouse.privacy.roles_snowflake import snowflake_ddl
from warehouse.publish import publish
from warehouse.query import QueryError, ask

YAML = yaml.safe_load(ROLES_FILE.read_text())
ROLES = list(YAML["roles"])
VALUES = {
    "string": "'value'::varchar",
    "boolean": "true",
    "date": "'2024-01-02'::date",
    "timestamp with time zone": "'2024-01-02'::timestamptz",
}
UNCLASSIFIED = "column_without_a_class"
FORBIDDEN = {"leaked_email": "personal", "leaked_number": "pan", "leaked_religion": "sensitive"}


def declared() -> dict[str, Any]:
    """What dbt's manifest says of marts, ops and bookkeeping, put together from the project's own YAML files."""
    nodes, sources = {}, {}
    for folder in ("models/marts", "models/ops", "models/features", "models/staging/ops"):
        for path in sorted((PROJECT_ROOT / folder).rglob("*.yml")):
            data = yaml.safe_load(path.read_text())
            for model in data.get("models") or []:
                schema = "ops" if folder == "models/ops" else folder.rpartition("/")[2]
                schema = "public" if schema == "marts" else schema
                if folder != "models/staging/ops":
                    nodes[model["name"]] = _node(model, schema)
            for source in data.get("sources") or []:
                for table in source["tables"]:
                    sources[table["name"]] = _node(table, source.get("schema", source["name"]))
    nodes["fct_sales"]["columns"] |= {
        name: {"name": name, "description": "", "data_type": "string", "config": {"meta": {"classification": given}}}
        for name, given in FORBIDDEN.items()
    } | {UNCLASSIFIED: {"name": UNCLASSIFIED, "description": "", "data_type": "string"}}
    return {"nodes": nodes, "sources": sources}


def _node(entry: dict[str, Any], schema: str) -> dict[str, Any]:
    columns = {column["name"]: {"description": ""} | column for column in entry.get("columns") or []}
    return {
        "resource_type": "model",
        "schema": schema,
        "name": entry["name"],
        "alias": entry["name"],
        "description": "",
        "columns": columns,
        "config": {"materialized": "table"},
    }


def value_of(data_type: str | None) -> str:
    given = "string" if data_type is None else data_type
    given = "timestamp with time zone" if "timestamp" in given else given
    return VALUES.get(given, f"7::{given}")


def put_manifest(settings: Settings, manifest: dict[str, Any]) -> None:
    path = Home.of(settings).dbt_target / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    """The declared tables."""
    return declared()


@pytest.fixture(scope="module")
def settings(
    make_settings: MakeSettings, tmp_path_factory: pytest.TempPathFactory, manifest: dict[str, Any]
) -> Settings:
    """A published warehouse with every declared table, each of two rows without a null."""
    settings = make_settings(tmp_path_factory.mktemp("roles") / "home")
    with open_warehouse(settings) as connection:
        for node in [*manifest["nodes"].values(), *manifest["sources"].values()]:
            columns = ", ".join(
                f'{value_of(column.get("data_type"))} as "{name}"' for name, column in node["columns"].items()
            )
            connection.execute(f"create schema if not exists {node['schema']}")
            name = f"{node['schema']}.{node['name']}"
            connection.execute(f"create table {name} as select {columns} from range(2)")
        connection.execute("update public.fct_sales set is_ever_captured = false where rowid = 0")
        connection.execute("create table public.fct_without_manifest as select 1 as amount")
    put_manifest(settings, manifest)
    publish(settings)
    return settings


def expected(role: str, schema: str, table: str, column: dict[str, Any]) -> str | None:
    """What roles.yml says, worked out here once more and in another way."""
    rule = YAML["roles"][role]["schemas"].get(schema)
    given = (column.get("config") or {}).get("meta", {}).get("classification")
    if given == "confidential" and any(fnmatchcase(f"{table}.{column['name']}", p) for p in YAML["identifiers"]):
        given = "identifier"
    if rule is None or not any(fnmatchcase(table, pattern) for pattern in rule["tables"]):
        return None
    found: str | None = rule["classes"].get(given)
    return found


def test_every_role_sees_exactly_what_roles_yml_says(
    settings: Settings, manifest: dict[str, Any], record_figure: RecordFigure
) -> None:
    cells = wrong = 0
    nodes = [*manifest["nodes"].values(), *manifest["sources"].values()]
    for role in ROLES:
        with open_export(settings, role) as connection:
            for node in nodes:
                views = all_seen(connection, f'{node["schema"]}."{node["name"]}"')
                for name, column in node["columns"].items():
                    cells += 1
                    wrong += views.get(name) != expected(role, node["schema"], node["name"], column)
    record_figure("role x column matrix", f"{cells - wrong:,} of {cells:,} cells as roles.yml says", "100 %")
    assert cells > 5_000
    assert wrong == 0


def all_seen(connection: duckdb.DuckDBPyConnection, place: str) -> dict[str, str]:
    """Each column of a table: plain, masked, or something else; a table that is not there has none."""
    try:
        names = [column[0] for column in connection.execute(f"select * from {place} limit 0").description]
    except duckdb.CatalogException:
        return {}
    counts = ", ".join(f'count("{name}")' for name in names)
    row = connection.execute(f"select {counts}, count(*) from {place}").fetchone()
    assert row is not None
    assert row[-1] > 0
    word = {row[-1]: "plain", 0: "masked"}
    return {name: word.get(count, "something else") for name, count in zip(names, row[:-1], strict=True)}


def seen(connection: duckdb.DuckDBPyConnection, place: str, column: str) -> str | None:
    return all_seen(connection, place).get(column)


def test_a_planted_fault_is_seen_by_the_matrix(settings: Settings, manifest: dict[str, Any]) -> None:
    """The matrix above would not pass on the published copy, nor with one rule changed."""
    column = manifest["nodes"]["fct_sales"]["columns"]["amount"]
    assert expected("data_engineer", "public", "fct_sales", column) == "masked"
    assert expected("analyst", "public", "fct_sales", column) == "plain"
    assert expected("service_dashboard", "public", "fct_sales", column) is None
    for role, view in (("data_engineer", "masked"), ("analyst", "plain"), ("service_dashboard", None)):
        with open_export(settings, role) as connection:
            assert seen(connection, "public.fct_sales", "amount") == view


@pytest.mark.parametrize("role", ROLES)
def test_what_has_no_class_or_a_forbidden_one_is_in_no_export(settings: Settings, role: str) -> None:
    with open_export(settings, role) as connection:
        names = {name for (name,) in connection.execute("select column_name from duckdb_columns()").fetchall()}
        tables = {name for (name,) in connection.execute("select table_name from duckdb_tables()").fetchall()}
    assert not names & {UNCLASSIFIED, *FORBIDDEN}
    assert "fct_without_manifest" not in tables


def test_a_role_sees_only_its_rows(settings: Settings) -> None:
    for role, rows in (("finance", 1), ("analyst", 2)):
        with open_export(settings, role) as connection:
            assert connection.execute("select count(*) from public.fct_sales").fetchone() == (rows,)


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to '{place}/x.csv'",
        "select * from read_csv('/etc/passwd')",
        "attach '{place}/x.duckdb'",
        "set enable_external_access = true",
        "set lock_configuration = false",
        "install httpfs",
        "create table public.x as select 1",
        "update public.fct_sales set amount = 0",
    ],
)
def test_an_export_is_locked_down(settings: Settings, tmp_path: Path, sql: str) -> None:
    with open_export(settings, "analyst") as connection, pytest.raises(QueryError):
        ask(connection, sql.format(place=tmp_path))


def test_each_export_has_its_own_key(settings: Settings) -> None:
    home = Home.of(settings)
    for role in ("analyst", "auditor"):
        export_role(settings, role)
        assert stat.S_IMODE(home.role_export(role).stat().st_mode) == 0o600
        assert b"value" not in home.role_export(role).read_bytes()
    assert file_key(settings, key_name("analyst")) != file_key(settings, key_name("auditor"))
    key = home.keys / "role_auditor.key"
    own = key.read_text()
    key.write_text((home.keys / "role_analyst.key").read_text())
    try:
        with pytest.raises(ConfigurationError, match="does not open with this key"), open_export(settings, "auditor"):
            pass
    finally:
        key.write_text(own)


def test_an_export_follows_the_published_copy(settings: Settings) -> None:
    with open_export(settings, "analyst"):
        pass
    path = Home.of(settings).role_export("analyst")
    before = path.stat().st_ino
    with open_export(settings, "analyst"):
        pass
    assert path.stat().st_ino == before
    publish(settings)
    with open_export(settings, "analyst"):
        pass
    assert path.stat().st_ino != before


def test_what_alone_has_changed_is_copied_alone_and_masked_all_the_same(settings: Settings) -> None:
    export_role(settings, "analyst")
    with open_export(settings, "analyst") as connection:
        before = connection.execute("select * from public.fct_sales").fetchall()
        assert seen(connection, "public.fct_sales", "amount") is not None
    assert current_exports(settings) == {"analyst"}
    publish(settings)
    assert current_exports(settings) == set()
    (report,) = export_configured(settings, only=[("public", "fct_sales")], current={"analyst"})
    assert set(report.tables) == {"public.fct_sales"}
    assert current_exports(settings) == {"analyst"}
    with open_export(settings, "analyst") as connection:
        assert connection.execute("select * from public.fct_sales").fetchall() == before
    (report,) = export_configured(settings, only=[("public", "fct_sales")])
    assert len(report.tables) > 1, "an export that was not current is made whole"


def test_a_column_that_loses_its_class_leaves_the_next_export(settings: Settings, manifest: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(manifest))
    del changed["nodes"]["fct_sales"]["columns"]["amount"]["config"]
    put_manifest(settings, changed)
    try:
        with open_export(settings, "analyst") as connection:
            assert seen(connection, "public.fct_sales", "amount") is None
    finally:
        put_manifest(settings, manifest)


def test_without_a_manifest_nobody_sees_anything(settings: Settings, manifest: dict[str, Any]) -> None:
    (Home.of(settings).dbt_target / "manifest.json").unlink()
    try:
        with pytest.raises(ConfigurationError, match="no column has a class"):
            export_role(settings, "analyst")
        with pytest.raises(ConfigurationError, match="no column has a class"), open_export(settings, "analyst"):
            pass
    finally:
        put_manifest(settings, manifest)


def test_an_unknown_role_and_nothing_published(settings: Settings, make_settings: MakeSettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no role 'root'"), open_export(settings, "root"):
        pass
    with (
        pytest.raises(ConfigurationError, match="nothing has been published"),
        open_export(make_settings(tmp_path / "home"), "analyst"),
    ):
        pass


def test_an_export_that_cannot_be_written_keeps_the_old_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_role(settings, "analyst")
    path = Home.of(settings).role_export("analyst")
    before = path.stat().st_ino

    def fails(*_: object) -> None:
        raise duckdb.IOException("No space left on device")

    monkeypatch.setattr(exports._Copy, "table", fails)
    with pytest.raises(WarehouseError, match="could not be written"):
        export_role(settings, "analyst")
    assert path.stat().st_ino == before
    assert not list(path.parent.glob("*.new*"))


def write_roles(tmp_path: Path, change: str) -> Path:
    """roles.yml with one thing wrong."""
    data = yaml.safe_load(ROLES_FILE.read_text())
    analyst = data["roles"]["analyst"]
    match change:
        case "personal":
            analyst["schemas"]["public"]["classes"]["personal"] = "plain"
        case "pan":
            analyst["schemas"]["public"]["classes"]["pan"] = "masked"
        case "view":
            analyst["schemas"]["public"]["classes"]["internal"] = "mask"
        case "kind":
            analyst["kind"] = "robot"
        case "key":
            analyst["colums"] = []
        case "name":
            data["roles"]["x; drop"] = analyst
        case "no classes":
            del analyst["schemas"]["public"]["classes"]
        case "query":
            analyst["rows"] = {"public.fct_sales": {"columns": {"a": "int"}, "when": "a in (select 1)"}}
        case "function":
            analyst["rows"] = {"public.fct_sales": {"columns": {}, "when": "getenv('HOME') = 'x'"}}
        case "column":
            analyst["rows"] = {"public.fct_sales": {"columns": {"a": "int"}, "when": "b = 1"}}
        case "unseen":
            analyst["rows"] = {"ops.ops_run_steps": {"columns": {"a": "int"}, "when": "a = 1"}}
    path = tmp_path / "roles.yml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize(
    "change",
    ["personal", "pan", "view", "kind", "key", "name", "no classes", "query", "function", "column", "unseen"],
)
def test_a_bad_roles_file_stops(tmp_path: Path, change: str) -> None:
    assert load_policy(write_roles(tmp_path, "nothing")).roles
    with pytest.raises(ConfigurationError, match=r"roles\.yml cannot be used"):
        load_policy(write_roles(tmp_path, change))


@pytest.fixture(scope="module")
def ddl(manifest: dict[str, Any]) -> list[str]:
    """Snowflake's statements."""
    return snowflake_ddl(load_policy(), relations(manifest), CATALOG)


def test_snowflake_reads_every_statement(ddl: list[str], record_figure: RecordFigure) -> None:
    # sqlglot does not know `create row access policy`: of policies, the body is what it reads
    plain = [statement for statement in ddl if " -> " not in statement]
    parsed = [sqlglot.parse_one(statement, dialect="snowflake") for statement in plain]
    grants = [node for node in parsed if isinstance(node, exp.Grant)]
    assert len(grants) == sum(statement.startswith("grant ") for statement in ddl) > 100
    bodies = [statement.partition(" -> ")[2] for statement in ddl if " -> " in statement]
    for body in bodies:
        node = sqlglot.parse_one(body, dialect="snowflake")
        assert not isinstance(node, exp.Command)
    record_figure(
        "Snowflake statements parsed", f"{len(ddl):,}, {len(grants)} grants, {len(bodies)} policy bodies", "all"
    )


def _places(ddl: Iterator[str], pattern: str) -> list[int]:
    return [number for number, statement in enumerate(ddl) if re.match(pattern, statement)]


def test_protection_comes_before_grants_and_public_gets_nothing(ddl: list[str]) -> None:
    first_grant = min(_places(iter(ddl), "grant "))
    protections = _places(iter(ddl), r"(create|alter) (masking|row access) policy|alter (tag|table|view|schema)|revoke")
    assert max(protections) < first_grant
    assert not [statement for statement in ddl if re.match(r"grant .* to (role )?public", statement, re.IGNORECASE)]
    assert [statement for statement in ddl if re.match("revoke all privileges on .* from role PUBLIC", statement)]


def test_grants_are_the_tables_of_roles_yml(ddl: list[str], manifest: dict[str, Any]) -> None:
    granted = {
        (match[2].lower(), match[1])
        for statement in ddl
        if (match := re.fullmatch(r"grant select on (?:table|view) (\S+) to role (\S+)", statement))
    }
    wanted = {
        (role, f"{node['schema']}.{node['name']}")
        for role in ROLES
        for node in [*manifest["nodes"].values(), *manifest["sources"].values()]
        for column in node["columns"].values()
        if expected(role, node["schema"], node["name"], column)
    }
    assert granted == wanted


def test_masking_bodies_are_roles_yml(ddl: list[str]) -> None:
    body = next(s.partition(" -> ")[2] for s in ddl if s.startswith("alter masking policy GOVERNANCE.MASK_TEXT"))
    assert body.endswith("else cast(null as varchar) end")
    branches = dict(re.findall(r"= '(\w+)' and \((.*?)\) then val", body))
    for schema in ("public", "ops", "features", "raw_ops"):
        for name in ("public", "internal", "confidential", "identifier", "personal", "pan"):
            plain = {
                role.upper()
                for role, given in YAML["roles"].items()
                if given["schemas"].get(schema, {"classes": {}})["classes"].get(name) == "plain"
            }
            assert set(re.findall(r"is_role_in_session\('(\w+)'\)", branches.get(f"{schema}_{name}", ""))) == plain


def test_every_column_is_tagged_and_the_unclassified_are_unseen(ddl: list[str]) -> None:
    tags = {
        (match[1], match[2]): match[3]
        for statement in ddl
        if (match := re.fullmatch(r"alter (?:table|view) (\S+) modify column (\S+) set tag \S+ = '(\w+)'", statement))
    }
    assert tags["public.fct_sales", "amount"] == "public_confidential"
    assert tags["public.dim_device", "device_id"] == "public_identifier"
    assert all(tags["public.fct_sales", name] == "unseen" for name in FORBIDDEN)
    assert ("public.fct_sales", UNCLASSIFIED) not in tags  # inherits its schema's
    assert "alter schema public set tag GOVERNANCE.ACCESS_CLASS = 'unseen'" in ddl


def test_people_need_mfa_and_services_a_key(ddl: list[str]) -> None:
    text = "\n".join(ddl)
    assert "GOVERNANCE.PEOPLE authentication_methods = ('SAML', 'PASSWORD') mfa_enrollment = 'REQUIRED'" in text
    assert "GOVERNANCE.SERVICES authentication_methods = ('KEYPAIR')\n" in text
    assert "authentication policy GOVERNANCE.PEOPLE for all person users" in text
    assert "authentication policy GOVERNANCE.SERVICES for all service users" in text


def test_a_row_policy_shows_nothing_to_a_role_that_is_not_named(ddl: list[str]) -> None:
    body = next(s for s in ddl if s.startswith("alter row access policy GOVERNANCE.ROWS_PUBLIC_FCT_SALES set body"))
    assert "(is_role_in_session('FINANCE') and (is_ever_captured))" in body
    assert "SERVICE_DASHBOARD" not in body
    assert not body.endswith("true")
    attach = next(n for n, s in enumerate(ddl) if "add row access policy GOVERNANCE.ROWS_PUBLIC_FCT_SALES" in s)
    revoked = [n for n, s in enumerate(ddl) if s.startswith("revoke select on table public.fct_sales")]
    assert len(revoked) == len(ROLES)
    assert max(revoked) < attach


def test_a_filter_on_what_does_not_exist_and_odd_names_are_refused() -> None:
    policy = load_policy()
    with pytest.raises(ConfigurationError, match="does not exist"):
        snowflake_ddl(policy, [Relation("public", "fct_sales", {"amount": "internal"})], CATALOG)
    with pytest.raises(ConfigurationError, match="does not exist"):
        snowflake_ddl(policy, [Relation("public", "dim_date", {"date_day": "public"})], CATALOG)
    with pytest.raises(ConfigurationError, match="quoted"):
        snowflake_ddl(policy, [Relation("public", "dim_date", {"x; drop": "public"})], CATALOG)


def test_the_commands(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    create_missing_keys(settings)
    monkeypatch.setattr(context, "get_settings", lambda: settings)
    run = CliRunner()
    asked = run.invoke(app, ["query", "select customer_id from dim_customer", "--role", "analyst", "--format", "json"])
    assert json.loads(asked.stdout) == [{"customer_id": None}] * 2
    last = tail(settings, 1)[0]["record"]
    assert last["actor"]["user"]["groups"] == [{"name": "analyst", "type": "role"}]
    assert {"type": "key", "name": "role_analyst"} in last["resources"]
    assert run.invoke(app, ["query", "select amount from fct_sales", "--role", "service_dashboard"]).exit_code == 8
    before = verify(settings).records
    assert run.invoke(app, ["query", "select 1", "--role", "ana@example.org"]).exit_code == 2
    assert verify(settings).records == before
    assert run.invoke(app, ["privacy", "roles", "--sql"]).stdout.startswith("create role if not exists ANALYST")
    assert set(json.loads(run.invoke(app, ["privacy", "roles", "--json"]).stdout)) == set(ROLES)
    made = run.invoke(app, ["privacy", "roles", "--export", "auditor", "--json"])
    assert json.loads(made.stdout)["role"] == "auditor"
    assert run.invoke(app, ["publish", "--json"]).exit_code == 0
    assert "analyst" in run.invoke(app, ["privacy", "roles"]).stdout
