"""What must be true of `raw_*` before anything is built from it.

Two kinds of rule: those that follow from the pinned schema (`ingestion/sources/*/schema.yml`) are generated for every
table; those that come from the business are written below by hand, table by table.
"""

from __future__ import annotations

from collections.abc import Iterator

from great_expectations.expectations.expectation import Expectation

from expectations.rules import (
    CLOCK_SKEW,
    COUNTRY,
    CURRENCY,
    Suite,
    between,
    exactly_columns,
    matches,
    never,
    no_personal_text,
    not_in_future,
    not_null,
    one_of,
    quoted,
    rarely,
    returns_nothing,
    unique,
)
from ingestion.quarantine import MAX_QUARANTINED_SHARE
from ingestion.raw import DLT_COLUMNS, OPS_TABLES, raw_table_names
from ingestion.schema import TOKEN_CLASSES, Leaf, Node, Table, all_tables, landed_parts
from warehouse.core.keys import TOKEN_SHAPE

STATUS_CODES = (
    "requires_action",
    "authorized",
    "captured",
    "failed",
    "blocked",
    "canceled",
    "refunded",
    "partially_refunded",
    "disputed",
    "charged_back",
)

# Amounts in documents are numbers or text (Decimal128 travels as text): typed here the way staging types them.
_MONGO_AMOUNT = "try_cast(json_extract_string(document, '$.amount') as decimal(38, 10))"
_EVENT_AMOUNT = "json_extract_string(document, '$.amount')"

BUSINESS_RULES: dict[str, tuple[Expectation, ...]] = {
    "raw_oltp.currency": (between("minor_unit", 0, 4),),
    "raw_oltp.location": (matches("country_code", COUNTRY),),
    "raw_oltp.merchant": (matches("mcc", "[0-9]{4}"), between("pci_level", 1, 4)),
    "raw_oltp.product": (between("unit_price", 0, None),),
    "raw_oltp.payment_method": (
        never(
            "a card number's token, BIN and last four land together",
            "(card_number_token is null) <> (card_number_bin is null)"
            " or (card_number_token is null) <> (card_number_last4 is null)",
            column="card_number_token",
        ),
    ),
    "raw_oltp.transaction": (
        between("amount", 0, None),
        between("tax", 0, None),
        never("tax is at most the amount", "tax > amount", column="tax"),
        between("quantity", 1, None),
        one_of("status_code", *STATUS_CODES),
        never("changed no earlier than created", "updated_at < created_at", column="updated_at"),
        rarely(
            "no more decimals than the currency has",
            "(sale.amount * 10000)::hugeint % power(10, 4 - currency.minor_unit)::hugeint <> 0",
            relation="{batch} as sale inner join raw_oltp.currency as currency using (currency_code)",
            column="amount",
        ),
    ),
    "raw_mongodb.transactions": (
        never("at least 0", f"{_MONGO_AMOUNT} < 0", column="document.amount"),
        never(
            "at least 0 and at most 1",
            "try_cast(json_extract_string(document, '$.fraud_score') as double) not between 0 and 1",
            column="document.fraud_score",
        ),
        never(
            "a currency code",
            f"not regexp_full_match(json_extract_string(document, '$.currency.code'), '{CURRENCY}')",
            column="document.currency.code",
        ),
    ),
    "raw_mongodb.currency_exchange_rates": (
        never(
            "a day",
            "try_cast(left(json_extract_string(document, '$.date'), 10) as date) is null",
            column="document.date",
        ),
        never(
            "a currency code",
            f"not regexp_full_match(json_extract_string(document, '$.base'), '{CURRENCY}')",
            column="document.base",
        ),
        never(
            "every rate is above 0",
            "len(list_filter(json_extract_string(document, '$.rates.*'),"
            " lambda rate: try_cast(rate as double) <= 0)) > 0",
            column="document.rates",
        ),
    ),
    "raw_mongodb.customer_feedback": (
        never(
            "1 to 5",
            "try_cast(json_extract_string(document, '$.rating') as double) not between 1 and 5",
            column="document.rating",
        ),
    ),
    "raw_stream.payments_transactions": (
        between("kafka_partition", 0, None),
        between("kafka_offset", 0, None),
        never(
            "a decimal of at most 4 places",
            f"not regexp_full_match({_EVENT_AMOUNT}, '-?[0-9]{{1,14}}([.][0-9]{{1,4}})?')",
            column="document.amount",
        ),
        never(
            # a payout is negative when a merchant owes more (refunds, fees) than was captured
            "not negative, payouts apart",
            f"{_EVENT_AMOUNT} like '-%' and json_extract_string(document, '$.event_type') not like 'payout.%'",
            column="document.amount",
        ),
        never(
            "a currency code",
            f"not regexp_full_match(json_extract_string(document, '$.currency_code'), '{CURRENCY}')",
            column="document.currency_code",
        ),
        never(
            "not in the future",
            f"try_cast(json_extract_string(document, '$.occurred_at') as timestamptz) > now() + {CLOCK_SKEW}",
            column="document.occurred_at",
        ),
    ),
}

_COUNTS = ("source_rows", "unchanged_rows", "landed_rows", "deleted_rows", "quarantined_rows", "unknown_keys")

OPS_RULES: dict[str, tuple[Expectation, ...]] = {
    "load_manifest": (
        not_null("load_id"),
        not_null("table_name"),
        unique("load_id", "source", "table_name"),
        *(between(column, 0, None) for column in _COUNTS),
        never(
            "source = unchanged + landed + quarantined",
            "status = 'completed' and source_rows is distinct from unchanged_rows + landed_rows + quarantined_rows",
            column="source_rows",
        ),
        never(
            "a completed load has begun and ended, in that order",
            "status = 'completed' and (started_at <= finished_at) is not true",
            column="finished_at",
        ),
        not_in_future("finished_at"),
        returns_nothing(
            f"at most {MAX_QUARANTINED_SHARE:.0%} of a table's newest load is quarantined",
            "select 1 as broken from {batch} where status = 'completed' and mode <> 'retry'"
            " qualify row_number() over (partition by source, table_name order by finished_at desc) = 1"
            f" and quarantined_rows > {MAX_QUARANTINED_SHARE} * source_rows limit 1",
            column="quarantined_rows",
        ),
    ),
    "landed_files": (
        not_null("sha256"),
        unique("source", "table_name", "sha256"),
        between("rows", 1, None),
        between("quarantined_rows", 0, None),
        not_in_future("landed_at"),
    ),
    "erasure_ledger": (
        never(
            "an entry says what was erased",
            "coalesce(subject, subject_token, row_key, row_key_token) is null",
            column="row_key",
        ),
        not_in_future("erased_at"),
    ),
    "retention_cutoff": (
        not_null("cutoff"),
        unique("source", "table_name"),
        not_in_future("cutoff"),
        not_in_future("applied_at"),
    ),
    "retention_held": (
        never(
            "an entry says whose rows a hold keeps",
            "coalesce(party_token, payment_token) is null",
            column="party_token",
        ),
        not_in_future("kept_from"),
    ),
    "quarantine": (
        not_null("load_id"),
        not_null("table_name"),
        not_null("reason"),
        no_personal_text("payload"),
        no_personal_text("reason"),
    ),
    "access_audit": (
        not_null("event_uid"),
        not_null("event_at"),
        not_null("actor_name"),
        no_personal_text("resource_name"),
        no_personal_text("status_detail"),
    ),
    "run_steps": (not_null("run_id"), not_null("step"), no_personal_text("detail")),
}


def suites() -> list[Suite]:
    """One suite per raw table: 19 pinned tables, the histories of those that change, those of `raw_ops`."""
    return [
        *(
            Suite(table.raw_schema, name, tuple(_rules(table, name)))
            for table in all_tables()
            for name in raw_table_names(table)
        ),
        *(Suite("raw_ops", name, OPS_RULES[name]) for name in OPS_TABLES),
    ]


def _rules(table: Table, name: str) -> Iterator[Expectation]:
    yield from _shape(table)
    for column in table.key:
        yield not_null(column)
    for column in ("_row_hash", "_landed_at", "_load_id"):
        yield not_null(column)
    if name == table.name:
        yield unique(*table.key)
        if table.history:
            yield _in_history(table)
    for column, sql_type in table.landed_columns:
        if sql_type == "timestamp with time zone":
            yield not_in_future(column)
    for leaf in table.columns:
        yield from _column_rules(leaf)
    if table.is_document:
        yield from _document_rules(table)
    yield from BUSINESS_RULES.get(table.qualified, ())


def _shape(table: Table) -> Iterator[Expectation]:
    """Exactly the pinned columns, of the pinned types: no plain personal column, nothing undeclared."""
    pinned = (*table.landed_columns, *DLT_COLUMNS)
    yield exactly_columns(*(column for column, _ in pinned))
    types = ", ".join(f"('{column}', '{sql_type.upper()}')" for column, sql_type in pinned)
    yield returns_nothing(
        "every column has its pinned type",
        "select 1 as broken from (describe select * from {batch})"
        f" where (column_name, column_type) not in ({types}) limit 1",
    )


def _in_history(table: Table) -> Expectation:
    keys = " and ".join(f"version.{quoted(column)} = landed.{quoted(column)}" for column in table.key)
    return returns_nothing(
        "every current row is in the history",
        f"select 1 as broken from {{batch}} as landed anti join {table.qualified}_history as version"
        f" on {keys} and version._row_hash = landed._row_hash limit 1",
        column="_row_hash",
    )


def _column_rules(leaf: Leaf) -> Iterator[Expectation]:
    for column, sql_type in landed_parts(leaf):
        part = column.removeprefix(f"{leaf.name}_")
        if column == leaf.name:
            if sql_type == "varchar":
                yield no_personal_text(column)
            if column.endswith("currency") or column == "currency_code":
                yield matches(column, CURRENCY)
        elif part in _SAFE_PART_SHAPES:
            yield matches(column, _SAFE_PART_SHAPES[part])
        elif column in _SAFE_PART_SHAPES:
            yield matches(column, _SAFE_PART_SHAPES[column])
        elif part == "degree":
            yield between(column, -180, 180)
        elif column == "birth_year":
            yield between(column, 1900, 2100)


_SAFE_PART_SHAPES = {
    "token": TOKEN_SHAPE,
    "bin": "[0-9]{6}|[0-9]{8}",
    "last4": "[0-9]{4}",
    "email_domain": "[^@]*",
    "ip_network": "[0-9a-fA-F.:]+/[0-9]{1,3}",
    "postal_prefix": ".{0,3}",
}


def _document_rules(table: Table) -> Iterator[Expectation]:
    yield not_null("document")
    yield no_personal_text("document")
    yield never("undeclared keys land as tokens", _bad_token("$._unknown[*].value_token"), column="document._unknown")
    for path, leaf in _leaves(table.document, "$"):
        place = f"document{path.removeprefix('$')}"
        if leaf.data_class in TOKEN_CLASSES:
            yield never("the plain key is absent", _has_key(path), column=place)
            yield never("is a token", _bad_token(f"{path}_token"), column=f"{place}_token")
        elif leaf.required:
            yield never("is there", f"json_extract_string(document, '{path}') is null", column=place)


def _has_key(path: str) -> str:
    """A predicate: the document, or one object of the array it goes through, has this key."""
    exists = f"json_exists(document, '{path}')"
    return f"len({exists}) > 0" if "[*]" in path else exists


def _bad_token(path: str) -> str:
    """A predicate: the text at `path` of the document, or one of them, is there and is not a token."""
    text = f"json_extract_string(document, '{path}')"
    if "[*]" in path:
        return f"len(list_filter({text}, lambda token: not regexp_full_match(token, '{TOKEN_SHAPE}'))) > 0"
    return f"not regexp_full_match({text}, '{TOKEN_SHAPE}')"


def _leaves(nodes: tuple[Node, ...], path: str) -> Iterator[tuple[str, Leaf]]:
    """Every declared scalar with its JSON path; open maps are of plain classes and have no rule of their own."""
    for node in nodes:
        here = f"{path}.{node.name}"
        if node.leaf is not None and node.map_key is None:
            yield here, node.leaf
        elif node.fields:
            yield from _leaves(node.fields, here)
        elif node.items is not None:
            if node.items.leaf is not None:
                yield f"{here}[*]", node.items.leaf
            else:
                yield from _leaves(node.items.fields, f"{here}[*]")
