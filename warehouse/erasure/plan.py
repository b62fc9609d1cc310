"""What has to go: every id, key, token and value of one customer, gathered before the first of them is destroyed.

The plan is kept in the vault, encrypted, until the erasure is proved: an erasure that was interrupted goes on from it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import duckdb

from ingestion.erasure import subject_sql
from ingestion.lake import sql_text
from ingestion.raw import raw_table_names
from ingestion.schema import Table, all_tables
from warehouse.core.database import open_warehouse
from warehouse.core.errors import ConfigurationError
from warehouse.core.settings import CATALOG, Settings
from warehouse.privacy.matcher import Needle
from warehouse.privacy.needles import needles_of
from warehouse.privacy.subjects import checked_subject, kind_of, pattern_of, spellings_of
from warehouse.privacy.vault import ALIAS, UnknownSubject, open_vault
from warehouse.publish import is_current

OWNED = {"device": "device_id", "payment_method": "payment_method_id"}
"""Table of `oltp` → its key: things that belong to a customer."""


@dataclass
class Plan:
    """One erasure."""

    id: str
    subject: str
    """Canonical."""
    ticket: str
    begun_at: str
    ids: list[str] = field(default_factory=list)
    """Every spelling that was found, and those that the systems write."""
    owned: dict[str, list[str]] = field(default_factory=dict)
    """Table of `oltp` → keys of rows that are theirs alone: devices, payment methods, addresses."""
    sessions: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    """Of dimension members and their versions."""
    values: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    shared: int = 0
    """Values that others have too, and dates: they cannot be searched for."""
    published_is_current: bool = False
    """Whether the published copy is of what is built: then only what changes is published again."""

    @property
    def identifiers(self) -> list[str]:
        """What a column that points at the person may hold."""
        owned = [key for table in OWNED for key in self.owned.get(table, ())]
        return sorted({*self.ids, *owned, *self.sessions, *self.keys})

    @property
    def needles(self) -> list[Needle]:
        """What may be found nowhere afterwards."""
        return (
            [Needle("identifier", name, whole=True) for name in self.identifiers]
            + [Needle("value", value, whole=True) for value in self.values]
            + [Needle("token", token) for token in self.tokens]
        )


def open_plan(settings: Settings, subject: str, ticket: str) -> tuple[Plan, list[str]]:
    """The plan of an erasure that was begun, with the steps that are done, or a new one.

    Raises:
        ConfigurationError: the id is none of a customer.
        UnknownSubject: neither the vault nor the warehouse knows them.
        VaultDamaged: a key or a value in the vault does not open.
    """
    canonical = checked_subject(subject)
    with open_vault(settings, read_only=False) as vault:
        begun = vault.execute(
            f"select plan, done from {ALIAS}.main.erasure where subject = $subject", {"subject": canonical}
        ).fetchone()
        if begun is not None:
            return Plan(**json.loads(begun[0])), list(begun[1])
        if kind_of(canonical) != "customer":
            raise ConfigurationError(
                "only customers are erased: a shop's record is kept by law while its payments are",
                todo="give a customer's id; a shop's people are erased by correcting the shop's record at the source",
            )
        plan = _new_plan(settings, vault, canonical, ticket)
        vault.execute(
            f"insert into {ALIAS}.main.erasure values ($id, $subject, $plan, [], now())",
            {"id": plan.id, "subject": canonical, "plan": json.dumps(asdict(plan))},
        )
    return plan, []


def mark_done(settings: Settings, plan: Plan, step: str) -> bool:
    """Remember that a step is complete; safe to repeat. Whether it was not so yet."""
    with open_vault(settings, read_only=False) as vault:
        row = vault.execute(
            f"update {ALIAS}.main.erasure set done = list_append(done, $step) "
            "where id = $id and not list_contains(done, $step)",
            {"step": step, "id": plan.id},
        ).fetchone()
    return bool(row and row[0])


def _new_plan(settings: Settings, vault: duckdb.DuckDBPyConnection, subject: str, ticket: str) -> Plan:
    now = datetime.now(UTC)
    plan = Plan(f"{now:%Y%m%dT%H%M%S%f}Z", subject, ticket, now.isoformat(timespec="seconds"))
    plan.published_is_current = is_current(settings)
    named = {
        name
        for (name,) in vault.execute(
            f"select distinct subject from {ALIAS}.main.sealed_entry where owner = $owner", {"owner": subject}
        ).fetchall()
    }
    with open_warehouse(settings, read_only=True, memory_limit=settings.memory_limit) as connection:
        for table in all_tables():
            if table.subject is not None:
                named.update(_spellings_in(connection, table, subject))
        if not named:
            raise UnknownSubject(
                "neither the vault nor the warehouse knows this subject",
                todo="look the id up (`warehouse query`); who was erased is not known any more",
            )
        plan.ids = sorted(named | set(spellings_of(subject)))
        ids = ", ".join(sql_text(name) for name in plan.ids)
        for name, key in OWNED.items():
            owned = f"select {key} from {CATALOG}.raw_oltp.{name} where customer_id in ({ids})"
            plan.owned[name] = _texts(connection, owned)
        plan.owned["location"] = _addresses(connection, ids)
        plan.sessions = _texts(
            connection,
            f"select document ->> '$.session_id' from {CATALOG}.raw_mongodb.user_interactions "
            f"where document ->> '$.customer_id' in ({ids})",
        )
        plan.keys = _keys(connection, plan)
        tokens = set(_card_tokens(connection, ids))
    places = [f"row|oltp.location|{key}" for key in plan.owned["location"]]
    for owner, names in ((subject, plan.ids), *((place, ()) for place in places)):
        found = needles_of(vault, settings, owner, names)
        plan.values += [needle.value for needle in found.needles if needle.what == "subject's value"]
        tokens |= {needle.value for needle in found.needles if needle.what == "subject's token"}
        plan.shared += found.shared
    plan.tokens = sorted(tokens)
    return plan


def _spellings_in(connection: duckdb.DuckDBPyConnection, table: Table, subject: str) -> set[str]:
    mine = f"regexp_full_match({subject_sql(table)}, {sql_text(pattern_of(subject))})"
    return {
        found
        for name in raw_table_names(table)
        for found in _texts(
            connection, f'select {subject_sql(table)} from {CATALOG}.{table.raw_schema}."{name}" where {mine}'
        )
    }


def _addresses(connection: duckdb.DuckDBPyConnection, ids: str) -> list[str]:
    """Locations that nobody else lives at, sells from or was seen at."""
    return _texts(
        connection,
        f"""
        select location_id from {CATALOG}.raw_oltp.customer_history where customer_id in ({ids})
        except select location_id from {CATALOG}.raw_oltp.customer_history where customer_id not in ({ids})
        except select location_id from {CATALOG}.raw_oltp.merchant_history
        except select location_id from {CATALOG}.raw_oltp.transaction_history where customer_id not in ({ids})
        """,
    )


def _keys(connection: duckdb.DuckDBPyConnection, plan: Plan) -> list[str]:
    """Keys of members (`macros/modelling/dimension_members.sql`) and of their versions."""
    members = [plan.subject, *(key for name in OWNED for key in plan.owned[name])]
    keys = {hashlib.md5(f"oltp|{member}".encode(), usedforsecurity=False).hexdigest() for member in members}
    history = f"{CATALOG}.public.dim_customer_history"
    built = connection.execute(
        "select 1 from duckdb_tables() where database_name = $catalog and schema_name = 'public' "
        "and table_name = 'dim_customer_history'",
        {"catalog": CATALOG},
    ).fetchone()
    if built is not None:
        versions = f"select customer_version_key from {history} where customer_id = {sql_text(plan.subject)}"
        keys.update(_texts(connection, versions))
    return sorted(keys)


def _card_tokens(connection: duckdb.DuckDBPyConnection, ids: str) -> list[str]:
    """Of cards that no other customer has on file."""
    cards = f"select card_number_token from {CATALOG}.raw_oltp.payment_method where customer_id"
    return _texts(connection, f"{cards} in ({ids}) except {cards} not in ({ids})")


def _texts(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    return sorted({str(value) for (value,) in connection.execute(sql).fetchall() if value is not None})


def pinned_raw() -> dict[tuple[str, str], Table]:
    """(schema, table) → its pinned table, histories included."""
    return {(table.raw_schema, name): table for table in all_tables() for name in raw_table_names(table)}
