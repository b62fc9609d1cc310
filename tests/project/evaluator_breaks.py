"""One way to break each rule of `evaluator_rules.py`, on a copy of the manifest."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from tests.project import evaluator_rules as rules

Manifest = dict[str, Any]


def _model(manifest: Manifest, name: str) -> dict[str, Any]:
    node: dict[str, Any] = manifest["nodes"][f"model.payments_warehouse.{name}"]
    return node


def _any_source(manifest: Manifest) -> tuple[str, dict[str, Any]]:
    key: str = next(iter(manifest["sources"]))
    return key, manifest["sources"][key]


def _add_model(manifest: Manifest, name: str, parents: list[str], **config: Any) -> str:
    model = copy.deepcopy(_model(manifest, "int_entity_crosswalk"))
    key = f"model.payments_warehouse.{name}"
    model |= {"name": name, "unique_id": key, "depends_on": {"nodes": parents, "macros": []}}
    model["config"] |= config
    manifest["nodes"][key] = model
    return key


def declare_twice(manifest: Manifest) -> None:
    key, source = _any_source(manifest)
    manifest["sources"][f"{key}_again"] = source | {
        "name": "again",
        "identifier": source["identifier"] or source["name"],
    }


def spell_out(manifest: Manifest) -> None:
    _model(manifest, "fct_sales")["raw_code"] += "\nleft join public.dim_date on true"


def orphan(manifest: Manifest) -> None:
    _model(manifest, "fct_sales")["depends_on"]["nodes"] = []


def need_no_exception(manifest: Manifest) -> None:
    """An exception that nothing needs any more is a fault as well."""
    _model(manifest, "dim_date")["depends_on"]["nodes"] = [_model(manifest, "fct_sales")["unique_id"]]


def read_twice(manifest: Manifest) -> None:
    staged = next(key for key in manifest["sources"] if key.endswith(".oltp.customer"))
    _add_model(manifest, "stg_oltp__customer_again", [staged])


def fan_out(manifest: Manifest) -> None:
    parent = _model(manifest, "int_exchange_rates_published")["unique_id"]
    for number in range(rules.FAN_OUT):
        _add_model(manifest, f"int_leaf_{number}", [parent])


def rejoin(manifest: Manifest) -> None:
    first = _model(manifest, "int_exchange_rates_published")["unique_id"]
    between = _add_model(manifest, "int_between", [first])
    _add_model(manifest, "int_last", [first, between])


def join_too_much(manifest: Manifest) -> None:
    staged = [key for key, node in manifest["nodes"].items() if node["name"].startswith("stg_")]
    _add_model(manifest, "int_everything", staged[: rules.PARENTS])


def say_nothing_of_a_source(manifest: Manifest) -> None:
    _any_source(manifest)[1]["source_description"] = ""


def declare_elsewhere(manifest: Manifest) -> None:
    _any_source(manifest)[1]["original_file_path"] = "models/sources.yml"


def test_elsewhere(manifest: Manifest) -> None:
    test = next(node for node in manifest["nodes"].values() if node.get("attached_node"))
    test["original_file_path"] = "models/tests.yml"


def chain_views(manifest: Manifest) -> None:
    parent = _model(manifest, "int_entity_crosswalk")["unique_id"]
    for number in range(rules.CHAINED_VIEWS + 1):
        parent = _add_model(manifest, f"int_view_{number}", [parent], materialized="view")


def read_a_view(manifest: Manifest) -> None:
    _model(manifest, "fct_sales")["config"]["materialized"] = "view"


def read_something_protected(manifest: Manifest) -> None:
    _model(manifest, "fct_sales")["config"]["access"] = "protected"


def publish_without_contract(manifest: Manifest) -> None:
    _model(manifest, "int_entity_crosswalk")["config"]["access"] = "public"


EVALUATOR_BREAKS: list[tuple[Callable[[Manifest], Any], Callable[[Manifest], None]]] = [
    (rules.sources_are_declared_once, declare_twice),
    (rules.references_go_through_ref, spell_out),
    (rules.every_model_has_a_parent, orphan),
    (rules.every_model_has_a_parent, need_no_exception),
    (rules.a_source_is_read_once, read_twice),
    (rules.models_do_not_fan_out, fan_out),
    (rules.concepts_are_not_rejoined, rejoin),
    (rules.models_do_not_join_too_much, join_too_much),
    (rules.every_source_is_described, say_nothing_of_a_source),
    (rules.sources_lie_with_their_staging, declare_elsewhere),
    (rules.tests_lie_beside_what_they_test, test_elsewhere),
    (rules.views_are_not_chained, chain_views),
    (rules.exposures_read_tables, read_a_view),
    (rules.exposures_read_public_models, read_something_protected),
    (rules.public_models_have_contracts, publish_without_contract),
]
