"""The models for Snowflake: every statement dbt would send is Snowflake's SQL, found out without an account.

dbt compiles offline (no introspection, no connection), sqlglot reads the result in Snowflake's dialect. What fakesnow
can run of the staging layer is built on it, over empty raw tables made by the destination itself.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlglot
import yaml
from sqlglot import exp

from ingestion.destinations.choice import open_destination
from ingestion.destinations.snowflake import snowflake_session
from tests.security.test_access_audit import HISTORY
from warehouse.core.database import open_warehouse
from warehouse.core.settings import PROJECT_ROOT, Settings
from warehouse.privacy.access_audit import land_own, land_snowflake
from warehouse.privacy.audit import record
from warehouse.privacy.ocsf import Activity, Actor, Resource

INTROSPECTIVE = ("test_name:no_pan", "invariant_25_no_personal_data_in_published_text")
"""They ask the warehouse for a model's columns while they compile."""

OTHER_ENGINES = {
    "unix_micros", "from_utc_timestamp", "unix_timestamp", "explode", "sequence", "from_json",  # Spark's
    "epoch_us", "list_filter", "json_extract_string", "map_keys", "map_values", "pg_timezone_names",  # DuckDB's
    "regexp_matches", "json_array_length", "unnest",
}  # fmt: skip
"""Functions that Snowflake does not have: a macro without a Snowflake form would let them through."""

REFUSED_BY_FAKESNOW = {"stg_mongodb__merchants", "stg_mongodb__merchants_history"}
"""They count items of an array with a lambda, which fakesnow does not translate."""


def dbt(
    folder: Path, profile: dict[str, Any], *arguments: str, project: Path = PROJECT_ROOT
) -> subprocess.CompletedProcess[str]:
    """Run dbt on the project with a profile of its own; everything it writes goes below `folder`."""
    folder.mkdir(exist_ok=True)
    outputs = {"target": "snowflake", "outputs": {"snowflake": profile}}
    (folder / "profiles.yml").write_text(yaml.safe_dump({"payments_warehouse": outputs}))
    # fmt: off
    command = [
        sys.executable, "-m", "dbt.cli.main", "--no-use-colors", "--log-path", str(folder / "logs"), *arguments,
        "--project-dir", str(project), "--profiles-dir", str(folder), "--target-path", str(folder / "target"),
    ]
    # fmt: on
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "DO_NOT_TRACK": "1"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module", params=[False, True], ids=["from nothing", "incremental"])
def compiled(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, str]:
    """Name → compiled statement of every model and test, and of every hook that an incremental run has."""
    folder = tmp_path_factory.mktemp("compile")
    incremental = bool(request.param)
    nodes = compile_offline(folder, incremental, PROJECT_ROOT)
    statements = {
        node["name"]: node["compiled_code"]
        for node in nodes
        if node["resource_type"] in ("model", "test") and node.get("compiled_code")
    }
    return statements | (compile_hooks(folder, nodes) if incremental else {})


def compile_offline(folder: Path, incremental: bool, project: Path, *arguments: str) -> list[dict[str, Any]]:
    """The nodes of the manifest. Port 9 of loopback answers nothing: no connection is made."""
    nowhere = {
        "type": "snowflake",
        "account": "none",
        "host": "127.0.0.1",
        "port": 9,
        "user": "nobody",
        "password": "none",
        "database": "OLAP_STRIP_PROJECT",
        "schema": "PUBLIC",
        "threads": 1,
    }
    # fmt: off
    result = dbt(
        folder, nowhere, "compile", "--no-introspect", "--no-populate-cache",
        "--vars", json.dumps({"compile_as_incremental": incremental}),
        *(part for name in INTROSPECTIVE for part in ("--exclude", name)), *arguments, project=project,
    )
    # fmt: on
    assert result.returncode == 0, result.stdout[-2000:]
    return list(json.loads((folder / "target" / "manifest.json").read_text())["nodes"].values())


def compile_hooks(folder: Path, nodes: list[dict[str, Any]]) -> dict[str, str]:
    """dbt compiles hooks only when it runs them. So a copy of the project has each as an analysis, which it compiles.

    `this` is then the analysis and not the model, which makes no other SQL of it.
    """
    project = folder / "project"
    analyses = project / "analyses"
    for name in ("models", "macros", "seeds", "snapshots", "tests/dbt"):
        shutil.copytree(PROJECT_ROOT / name, project / name)
    shutil.copy(PROJECT_ROOT / "dbt_project.yml", project)
    analyses.mkdir()
    for node in nodes:
        if node["resource_type"] == "model":
            hooks = [hook["sql"] for when in ("pre-hook", "post-hook") for hook in node["config"][when]]
            for number, hook in enumerate(hooks):
                (analyses / f"hook_{number}_of_{node['name']}.sql").write_text(hook)
    compiled = compile_offline(folder / "hooks", True, project, "--select", "path:analyses")
    return {node["name"]: node["compiled_code"] for node in compiled if node["resource_type"] == "analysis"}


def test_every_model_compiles_for_snowflake(compiled: dict[str, str]) -> None:
    models = {path.stem for path in (PROJECT_ROOT / "models").rglob("*.sql")}
    assert len(models) > 50
    assert models <= compiled.keys()


def test_every_hook_of_an_incremental_run_compiles(compiled: dict[str, str], request: pytest.FixtureRequest) -> None:
    hooks = {name: sql for name, sql in compiled.items() if name.startswith("hook_")}
    if "incremental" in request.node.name.rpartition("[")[2]:
        assert len(hooks) > 20
        assert {sql.split()[0] for sql in hooks.values()} == {"delete"}
    else:
        assert not hooks


def test_every_statement_is_snowflake_sql(compiled: dict[str, str]) -> None:
    wrong = []
    for name, statement in compiled.items():
        try:
            parsed = sqlglot.parse(statement, read="snowflake")
        except sqlglot.errors.SqlglotError as error:
            wrong.append(f"{name}: {str(error).splitlines()[0]}")
            continue
        if len(parsed) != 1 or isinstance(parsed[0], exp.Command):
            wrong.append(f"{name}: is not one query")
    assert wrong == []


def test_no_statement_uses_another_engines_function(compiled: dict[str, str]) -> None:
    calls = re.compile(rf"\b({'|'.join(sorted(OTHER_ENGINES))})\s*\(", re.IGNORECASE)
    found = {name: sorted(set(calls.findall(statement))) for name, statement in compiled.items()}
    assert {name: functions for name, functions in found.items() if functions} == {}


def test_every_dispatched_macro_has_a_form_for_each_engine() -> None:
    texts = [path.read_text() for path in (PROJECT_ROOT / "macros").rglob("*.sql")]
    dispatched = {name for text in texts for name in re.findall(r"adapter\.dispatch\('(\w+)'", text)}
    defined = {name for text in texts for name in re.findall(r"\{%-?\s*macro\s+(\w+)\(", text)}
    assert len(dispatched) > 15
    lacking = {
        f"{engine}: {name}"
        for name in dispatched
        for engine in ("duckdb", "snowflake", "spark")
        if not {f"{engine}__{name}", f"default__{name}"} & defined
    }
    assert lacking == set()
    forms = {name for name in defined if name.startswith(("default__", "duckdb__", "snowflake__", "spark__"))}
    assert {name for name in forms if name.split("__", 1)[1] not in dispatched | {"json_text"}} == set()


def builder(settings: Settings) -> dict[str, Any]:
    """A profile for the server of the settings."""
    address = urlsplit(settings.snowflake_url or "")
    return {
        "type": "snowflake",
        "account": "fakesnow",
        "host": address.hostname,
        "port": address.port,
        "protocol": "http",
        "user": "builder",
        "password": "none",
        "database": "OLAP_STRIP_PROJECT",
        "schema": "PUBLIC",
        "threads": 1,
    }


def states(folder: Path) -> dict[str, str]:
    """Node → how it ended."""
    results = json.loads((folder / "target" / "run_results.json").read_text())["results"]
    return {result["unique_id"].split(".")[2]: result["status"] for result in results}


@pytest.mark.slow
def test_the_staging_layer_builds_on_fakesnow(settings: Settings, tmp_path: Path) -> None:
    with open_warehouse(settings) as connection, open_destination(connection, settings):
        pass  # creates the raw tables
    dbt(tmp_path / "dbt", builder(settings), "run", "--select", "path:models/staging")
    found = states(tmp_path / "dbt")
    assert len(found) > 25
    refused = {name for name, status in found.items() if status != "success"}
    print(f"fakesnow builds {len(found) - len(refused)} staging models and refuses {sorted(refused)}")
    assert refused == REFUSED_BY_FAKESNOW
    with snowflake_session(settings) as session:
        rows = session.run("select count(*) from staging.stg_oltp__customer", step="a test's question")
    assert rows == [(0,)]


@pytest.mark.slow
def test_the_audit_of_access_builds_on_fakesnow_and_shows_both_logs(settings: Settings, tmp_path: Path) -> None:
    with open_warehouse(settings) as connection, open_destination(connection, settings) as destination:
        record(
            settings, Activity.REVEAL, actor=Actor("ana", "1000", "host-1", "192.0.2.7", 42, role="auditor"),
            outcome="failure", resources=[Resource("key", "vault"), Resource("purpose", "P-1")], error="Refused",
        )  # fmt: skip
        land_own(connection, settings)
        land_snowflake(connection, HISTORY)
        destination.store_operations()
    result = dbt(tmp_path / "dbt", builder(settings), "build", "--select", "stg_ops__access_audit", "ops_access_audit")
    found = states(tmp_path / "dbt")
    assert set(found.values()) == {"success", "pass"}, result.stdout[-3000:]
    assert sum(status == "pass" for status in found.values()) >= 3
    with snowflake_session(settings) as session:
        rows = session.run(
            "select event_system, event_type, ocsf_class_uid, event_status, actor_name, resource_name, is_sensitive, "
            "is_success from ops.ops_access_audit order by 1, 2, 6 nulls first",
            step="a test's question",
        )
    assert rows == [
        ("snowflake", "login", 3002, "Failure", "ANA", None, True, False),
        ("snowflake", "query", 6005, "Success", "ANA", None, False, True),
        ("snowflake", "query", 6005, "Success", "ANA", "db.public.a", False, True),
        ("snowflake", "query", 6005, "Success", "ANA", "db.public.b", False, True),
        ("warehouse", "reveal", 6005, "Failure", "ana", "P-1", True, False),
        ("warehouse", "reveal", 6005, "Failure", "ana", "vault", True, False),
    ]
