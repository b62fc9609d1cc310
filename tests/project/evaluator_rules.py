"""Those of dbt-project-evaluator's 29 rules that `rules.py` does not hold already; README.md maps all of them.

Each is a function over dbt's manifest that yields what breaks it. An exception names the node and says why; one that is
no longer needed is a fault of its own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

Manifest = dict[str, Any]

FAN_OUT = 3
"""Models at the end of the graph that may read one model, exclusive."""
PARENTS = 7
"""Models and seeds that one model may read, exclusive; a fact's dimensions are not counted."""
CHAINED_VIEWS = 4
"""Views in a row, inclusive."""

EXCEPTIONS: dict[str, dict[str, str]] = {
    "every_model_has_a_parent": {
        "dim_date": "a calendar is computed, not read",
        "dim_time": "the minutes of a day are computed, not read",
        "int_column_classification": "it reads the project's own graph while dbt compiles",
    },
    "models_do_not_fan_out": {
        "int_transaction_milestones": "the steps of a payment: the reports that end the graph count them, each its own",
        "int_payment_events_deduped": "the event: reports of disputes and schemes and the ops counts all begin here",
    },
    "concepts_are_not_rejoined": {
        "int_transaction_inputs → int_transactions_unified": "it says which payments changed, and carries nothing else",
        "int_sales_inputs → fct_sales": "it says which payments changed, and carries nothing else",
        "int_payment_compliance_inputs → int_payment_compliance_daily": "it says which days changed, nothing else",
        "int_settlement_rates → fct_sales": "a rate per day and pair of currencies carries no payment",
        "int_payment_issues → ops_data_issues": "a union of counts: what it does not list is counted at its own model",
        "int_fraud_labels → fct_fraud": "labels of a payment beside its 3-D Secure outcome and milestones",
        "int_payment_attempts → fct_payment_attempt": "of the payment only what the attempt's events do not tell",
        "int_status_history → int_payment_issues": "a union of issues, each over one or two models",
        "rpt_payout_reconciliation → ops_data_issues": "a union of counts, each over one model",
        "int_payment_compliance_daily → int_compliance_evidence": "counts per merchant and day, beside their versions",
        "int_platform_measurements → int_compliance_evidence": "append-only: nothing may be carried through it",
        "int_compliance_inputs → int_compliance_status": "it says whose statuses changed, and carries nothing else",
    },
    "models_do_not_join_too_much": {
        "int_entity_crosswalk": "the one place where every spelling of every source meets: a union, not a join",
        "int_transaction_inputs": "everything that may change a payment: a union of what has landed",
        "int_transactions_unified": "the one place where two databases become one payment",
        "int_ledger_entries": "the one place where every kind of movement becomes legs: a union",
        "int_payment_profiles": "flags of a payment from each thing it refers to, in one pass",
        "int_payment_compliance_daily": "countries of shop, customer and card on the day of the payment, in one pass",
        "int_platform_measurements": "a union of measurements, each over one model",
        "int_compliance_evidence": "a union of observations, each over one or two models",
        "ops_data_issues": "a union of counts, each over one model",
    },
}
"""Rule → what may break it, and why."""


def _name(unique_id: str) -> str:
    return unique_id.split(".")[-1]


def _folder(path: str) -> str:
    return path.rsplit("/", 1)[0]


def _models(manifest: Manifest) -> dict[str, dict[str, Any]]:
    return {key: node for key, node in manifest["nodes"].items() if node["resource_type"] == "model"}


def _is_dimension(unique_id: str) -> bool:
    return _name(unique_id).startswith("dim_")


def _is_mart(unique_id: str) -> bool:
    return _name(unique_id).startswith(("dim_", "fct_", "rpt_"))


def _parents(node: dict[str, Any]) -> list[str]:
    return [parent for parent in node["depends_on"]["nodes"] if parent.split(".")[0] in {"model", "seed", "snapshot"}]


def _children(manifest: Manifest) -> dict[str, set[str]]:
    children: dict[str, set[str]] = defaultdict(set)
    for key, model in _models(manifest).items():
        for parent in model["depends_on"]["nodes"]:
            children[parent].add(key)
    return children


def _unless_excepted(rule: str, broken: dict[str, str]) -> Iterator[str]:
    allowed = EXCEPTIONS.get(rule, {})
    yield from (problem for name, problem in broken.items() if name not in allowed)
    yield from (f"{name} is excepted without need" for name in allowed.keys() - broken.keys())


def sources_are_declared_once(manifest: Manifest) -> Iterator[str]:
    """One table is one source: two declarations of it would be tested, documented and aged apart."""
    seen: dict[tuple[str, str], str] = {}
    for source in manifest["sources"].values():
        table = (source["schema"], source.get("identifier") or source["name"])
        if table in seen:
            yield f"{'.'.join(table)} is declared as {seen[table]} and as {source['name']}"
        seen[table] = source["name"]


def references_go_through_ref(manifest: Manifest) -> Iterator[str]:
    """A relation is named by ref() or source(), never spelled out: the graph would not know of it."""
    spelled_out = re.compile(r"\b(?:from|join)\s+[\"`]?([a-z_][a-z0-9_]*)[\"`]?\.[\"`]?[a-z_]", re.IGNORECASE)
    for model in _models(manifest).values():
        code = re.sub(r"\{#.*?#\}|--[^\n]*|'[^']*'", "", model["raw_code"], flags=re.DOTALL)
        code = re.sub(r"extract\s*\(\s*\w+\s+from", "extract(", code, flags=re.IGNORECASE)
        # `distinct from a.b` compares, it does not read
        code = re.sub(r"distinct\s+from", "", code, flags=re.IGNORECASE)
        if found := spelled_out.search(code):
            yield f"{model['name']} reads {found.group(0).split()[-1]}… without ref()"


def every_model_has_a_parent(manifest: Manifest) -> Iterator[str]:
    """A model that reads nothing holds data that belongs into a seed or a source."""
    broken = {
        model["name"]: f"{model['name']} reads nothing"
        for model in _models(manifest).values()
        if not model["depends_on"]["nodes"]
    }
    yield from _unless_excepted("every_model_has_a_parent", broken)


def a_source_is_read_once(manifest: Manifest) -> Iterator[str]:
    """One staging model stands before each source table: two would clean it in two ways."""
    for source, children in _children(manifest).items():
        if source.startswith("source.") and len(children) > 1:
            yield f"{_name(source)} is read by {', '.join(sorted(map(_name, children)))}"


def models_do_not_fan_out(manifest: Manifest) -> Iterator[str]:
    """A model read by many that nothing reads repeats in each what it could say once.

    Facts are what a graph ends in, and marts are there to be read: neither counts.
    """
    children = _children(manifest)
    broken = {}
    for key in _models(manifest):
        leaves = sorted(
            _name(child) for child in children[key] if not children[child] and not _name(child).startswith("fct_")
        )
        if len(leaves) >= FAN_OUT and not _is_mart(key):
            broken[_name(key)] = f"{_name(key)} is read by {len(leaves)} models that nothing reads: {', '.join(leaves)}"
    yield from _unless_excepted("models_do_not_fan_out", broken)


def concepts_are_not_rejoined(manifest: Manifest) -> Iterator[str]:
    """A → B → C beside A → C, with B for C alone: what C needs of A, B could have carried.

    Facts and dimensions may be read again: that marts share them is what a star is.
    """
    children = _children(manifest)
    models = _models(manifest)
    broken = {}
    for key, model in models.items():
        direct = set(_parents(model))
        for between in direct & models.keys():
            if children[between] != {key}:
                continue
            shared = sorted(_name(parent) for parent in direct & set(_parents(models[between])) if not _is_mart(parent))
            if shared:
                name = f"{_name(between)} → {_name(key)}"
                broken[name] = f"{name}, and {_name(key)} reads {', '.join(shared)} again"
    yield from _unless_excepted("concepts_are_not_rejoined", broken)


def models_do_not_join_too_much(manifest: Manifest) -> Iterator[str]:
    """A model with many parents does several steps at once. A fact reads every dimension that applies: not counted."""
    broken = {}
    for key, model in _models(manifest).items():
        parents = {parent for parent in _parents(model) if not (_is_mart(key) and _is_dimension(parent))}
        if len(parents) >= PARENTS:
            broken[model["name"]] = (
                f"{model['name']} reads {len(parents)} models: {', '.join(map(_name, sorted(parents)))}"
            )
    yield from _unless_excepted("models_do_not_join_too_much", broken)


def every_source_is_described(manifest: Manifest) -> Iterator[str]:
    """A source system says what it is, not only its tables."""
    silent = {
        source["source_name"]
        for source in manifest["sources"].values()
        if not (source.get("source_description") or "").strip()
    }
    yield from (f"{name} has no description" for name in sorted(silent))


def sources_lie_with_their_staging(manifest: Manifest) -> Iterator[str]:
    """The sources of a system are declared in `models/staging/<system>/`."""
    for source in manifest["sources"].values():
        expected = f"models/staging/{source['source_name']}"
        if _folder(source["original_file_path"]) != expected:
            yield f"{source['source_name']}.{source['name']} is declared in {source['original_file_path']}"


def tests_lie_beside_what_they_test(manifest: Manifest) -> Iterator[str]:
    """A test is declared in the folder of the node that it is attached to."""
    nodes = manifest["nodes"] | manifest["sources"]
    for test in manifest["nodes"].values():
        attached = nodes.get(test.get("attached_node") or "") if test["resource_type"] == "test" else None
        if attached and _folder(test["original_file_path"]) != _folder(attached["original_file_path"]):
            yield f"{test['name']} lies in {_folder(test['original_file_path'])}, not beside {attached['name']}"


def views_are_not_chained(manifest: Manifest) -> Iterator[str]:
    """Views upon views run all their SQL each time the last one is read."""
    models = _models(manifest)
    depths: dict[str, int] = {}

    def depth(key: str) -> int:
        if key not in depths:
            node = models.get(key)
            is_view = node is not None and node["config"]["materialized"] in {"view", "ephemeral"}
            depths[key] = 1 + max(map(depth, _parents(node)), default=0) if node is not None and is_view else 0
        return depths[key]

    for key in models:
        if depth(key) > CHAINED_VIEWS:
            yield f"{_name(key)} is the end of {depth(key)} views in a row"


def exposures_read_tables(manifest: Manifest) -> Iterator[str]:
    """What a dashboard reads is a table: a view computes while people wait, a source is not modelled."""
    for exposure in manifest["exposures"].values():
        for parent in exposure["depends_on"]["nodes"]:
            node = manifest["nodes"].get(parent)
            if node is None:
                yield f"{exposure['name']} reads the source {_name(parent)}"
            elif node["config"]["materialized"] in {"view", "ephemeral"}:
                yield f"{exposure['name']} reads {_name(parent)}, a {node['config']['materialized']}"


def exposures_read_public_models(manifest: Manifest) -> Iterator[str]:
    """Who stands outside the project reads what the project promises to keep."""
    for exposure in manifest["exposures"].values():
        for parent in exposure["depends_on"]["nodes"]:
            node = manifest["nodes"].get(parent)
            if node is not None and node["resource_type"] == "model" and node["config"]["access"] != "public":
                yield f"{exposure['name']} reads {node['name']}, which is {node['config']['access']}"


def public_models_have_contracts(manifest: Manifest) -> Iterator[str]:
    """A public model, whatever its layer, promises its columns and their types."""
    for model in _models(manifest).values():
        if model["config"]["access"] == "public" and not model["config"]["contract"]["enforced"]:
            yield f"{model['name']} is public without a contract"


EVALUATOR_RULES = [
    sources_are_declared_once,
    references_go_through_ref,
    every_model_has_a_parent,
    a_source_is_read_once,
    models_do_not_fan_out,
    concepts_are_not_rejoined,
    models_do_not_join_too_much,
    every_source_is_described,
    sources_lie_with_their_staging,
    tests_lie_beside_what_they_test,
    views_are_not_chained,
    exposures_read_tables,
    exposures_read_public_models,
    public_models_have_contracts,
]
