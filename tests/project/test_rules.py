"""The project keeps its own rules, and each rule notices when it is broken."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeSettings
from tests.project import rules
from tests.project.evaluator_breaks import EVALUATOR_BREAKS
from warehouse.bus_matrix import bus_matrix
from warehouse.core.settings import PROJECT_ROOT
from warehouse.dbt import dbt_environment, ensure_profiles

Manifest = dict[str, Any]
Node = dict[str, Any]


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> tuple[Manifest, str]:
    """The manifest of `dbt parse`, and what dbt said."""
    ensure_profiles()
    folder = tmp_path_factory.mktemp("parse")
    done = subprocess.run(
        [sys.executable, "-m", "dbt.cli.main", "--no-partial-parse", "--show-all-deprecations", "parse",
         "--project-dir", str(PROJECT_ROOT), "--profiles-dir", str(PROJECT_ROOT),
         "--target-path", str(folder / "target"), "--log-path", str(folder / "logs")],
        env=dbt_environment(make_settings(folder / "home")), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return json.loads((folder / "target" / "manifest.json").read_text()), done.stdout


@pytest.fixture(scope="module")
def manifest(parsed: tuple[Manifest, str]) -> Manifest:
    return parsed[0]


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps_the_rule(manifest: Manifest, rule: rules.Rule) -> None:
    broken = list(rule(manifest))
    assert not broken, f"{rule.__doc__}\n" + "\n".join(broken)


def test_parsing_warns_of_nothing(parsed: tuple[Manifest, str]) -> None:
    assert "deprecat" not in parsed[1].lower()
    assert "warning" not in parsed[1].lower()


def test_the_bus_matrix_is_the_project_s(manifest: Manifest) -> None:
    page = (PROJECT_ROOT / "docs" / "bus-matrix.md").read_text(encoding="utf-8")
    assert page == bus_matrix(manifest).markdown(), "run `warehouse bus-matrix > docs/bus-matrix.md`"


def test_the_bus_matrix_knows_roles_and_versions(manifest: Manifest) -> None:
    matrix = bus_matrix(manifest)
    assert matrix.cells["fct_sales", "dim_date"] == "business date, captured date"
    assert matrix.cells["fct_sales", "dim_customer"] == "● ◆"
    assert ("fct_sales", "dim_compliance") not in matrix.cells


def test_key_material_is_not_in_the_manifest(manifest: Manifest, make_settings: MakeSettings, tmp_path: Path) -> None:
    text = json.dumps(manifest)
    assert "token_v1" not in text
    assert "env_var('DBT_ENV_SECRET" not in text


def _model(manifest: Manifest, prefix: str) -> Node:
    return next(model for model in rules.models(manifest) if model["name"].startswith(prefix))


def _column(manifest: Manifest, prefix: str) -> Node:
    column: Node = next(iter(_model(manifest, prefix)["columns"].values()))
    return column


def _tests_of(manifest: Manifest, node: Node) -> list[Node]:
    return [
        test
        for test in manifest["nodes"].values()
        if test["resource_type"] == "test" and test.get("attached_node") == node["unique_id"]
    ]


def _source_id(manifest: Manifest) -> str:
    return next(iter(manifest["sources"]))


def break_name(manifest: Manifest) -> None:
    _model(manifest, "fct_")["name"] = "sales"


def break_layers(manifest: Manifest) -> None:
    _model(manifest, "stg_")["depends_on"]["nodes"].append(_model(manifest, "fct_")["unique_id"])


def break_sources(manifest: Manifest) -> None:
    _model(manifest, "fct_")["depends_on"]["nodes"].append(_source_id(manifest))


def break_staging(manifest: Manifest) -> None:
    _model(manifest, "stg_")["raw_code"] += " inner join elsewhere on true"


def break_reading(manifest: Manifest) -> None:
    manifest["sources"]["source.x.y.z"] = {"schema": "raw_oltp", "name": "z"}


def break_description(manifest: Manifest) -> None:
    _column(manifest, "dim_")["description"] = " "


def break_classification(manifest: Manifest) -> None:
    column = _column(manifest, "int_")
    column["config"], column["meta"] = {}, {}


def break_class_name(manifest: Manifest) -> None:
    column = _column(manifest, "stg_")
    column["config"] = {"meta": {"classification": "secret"}}


def break_personal(manifest: Manifest) -> None:
    _column(manifest, "dim_customer")["name"] = "home_email"


def break_grain(manifest: Manifest) -> None:
    for test in _tests_of(manifest, _model(manifest, "fct_sales")):
        test["config"]["enabled"] = False


def break_grain_text(manifest: Manifest) -> None:
    _model(manifest, "rpt_")["config"]["meta"] = {}


def break_owner(manifest: Manifest) -> None:
    _model(manifest, "int_")["config"]["group"] = None


def break_contract(manifest: Manifest) -> None:
    _model(manifest, "dim_")["config"]["contract"]["enforced"] = False


def break_freshness(manifest: Manifest) -> None:
    source = next(source for source in manifest["sources"].values() if source["schema"] == "raw_stream")
    source["freshness"] = None


def break_exposure(manifest: Manifest) -> None:
    manifest["exposures"] = {}


def break_catalogue(manifest: Manifest) -> None:
    page = manifest["docs"]["doc.payments_warehouse.__overview__"]
    page["block_contents"] = page["block_contents"].replace("(#!/model/model.payments_warehouse.fct_sales)", "()")


def break_link(manifest: Manifest) -> None:
    page = manifest["docs"]["doc.payments_warehouse.__overview__"]
    page["block_contents"] += "[sales](#!/model/model.payments_warehouse.sales)"


def break_join(manifest: Manifest) -> None:
    _model(manifest, "fct_")["raw_code"] += "\njoin elsewhere on true"


def break_group_by(manifest: Manifest) -> None:
    _model(manifest, "rpt_")["raw_code"] += "\ngroup by 1"


def break_engine(manifest: Manifest) -> None:
    _model(manifest, "fct_")["raw_code"] += "\nselect amount::decimal(18, 4)"


BREAKS: list[tuple[rules.Rule, Callable[[Manifest], None]]] = [
    (rules.names_say_the_layer, break_name),
    (rules.layers_point_one_way, break_layers),
    (rules.layers_point_one_way, break_sources),
    (rules.staging_does_not_join, break_staging),
    (rules.every_source_table_is_staged, break_reading),
    (rules.everything_is_described, break_description),
    (rules.everything_is_classified, break_classification),
    (rules.everything_is_classified, break_class_name),
    (rules.nothing_personal_is_named_in_clear, break_personal),
    (rules.every_model_states_its_grain, break_grain),
    (rules.every_model_states_its_grain, break_grain_text),
    (rules.every_model_has_an_owner, break_owner),
    (rules.marts_are_contracts, break_contract),
    (rules.sources_tell_their_freshness, break_freshness),
    (rules.reports_are_exposed, break_exposure),
    (rules.the_catalogue_leads_to_every_fact_and_report, break_catalogue),
    (rules.the_catalogue_leads_to_every_fact_and_report, break_link),
    (rules.sql_has_no_star_or_right_join, break_join),
    (rules.sql_has_no_star_or_right_join, break_group_by),
    (rules.no_engine_outside_its_macros, break_engine),
    *EVALUATOR_BREAKS,
]


@pytest.mark.parametrize(("rule", "fault"), BREAKS, ids=lambda item: item.__name__)
def test_a_broken_rule_is_noticed(manifest: Manifest, rule: rules.Rule, fault: Callable[[Manifest], None]) -> None:
    broken = copy.deepcopy(manifest)
    fault(broken)
    assert list(rule(broken)), f"{fault.__name__} went unnoticed"


def test_every_rule_has_been_broken() -> None:
    assert {rule for rule, _ in BREAKS} == set(rules.RULES)
