"""Fill the source systems once, move them forward later, and survive being killed in between."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import AlreadyRunning, ConfigurationError
from warehouse.core.settings import Settings
from warehouse.simulation import reference
from warehouse.simulation.report import Progress, SimulationReport
from warehouse.simulation.stores.documents import INDEXES, DocumentStore
from warehouse.simulation.stores.oltp import TABLES, OltpStore, State
from warehouse.simulation.stores.stream import StreamStore


@dataclass(frozen=True)
class Stores:
    """The three systems, open. The document store and the stream are None where they are not ours to fill."""

    oltp: OltpStore
    documents: DocumentStore | None
    stream: StreamStore | None

    def rows(self) -> dict[str, int]:
        """Rows written so far, by system and name."""
        rows = dict(self.oltp.rows)
        if self.documents is not None:
            rows |= self.documents.rows
        if self.stream is not None:
            rows |= self.stream.rows
        return rows

    def are_filled(self) -> bool:
        """Whether the systems that keep no state of their own still hold their data."""
        return (self.documents is None or self.documents.is_filled()) and (
            self.stream is None or self.stream.is_filled()
        )


def fill(settings: Settings, endpoints: Endpoints, progress: Progress) -> SimulationReport:
    """Write the data set of the settings, unless it is already there.

    A fill that was killed is emptied and done again; an advance that was killed is completed.

    Raises:
        SourceUnavailable: a system does not answer; what is half-filled is filled again next time.
        ConfigurationError: the systems hold another data set.
        AlreadyRunning: another simulation is writing to them.
    """
    started = time.monotonic()
    if endpoints.postgres_admin_uri is None:
        return SimulationReport(note="PostgreSQL is not ours to fill: nothing was simulated")
    wanted = _wanted_state(settings)
    with _open(settings, endpoints) as stores:
        found = stores.oltp.read_state()
        stores.oltp.commit()
        if found is not None and found.status != "filling" and stores.are_filled():
            _refuse_other_company(found, wanted)
            return SimulationReport(
                seconds=time.monotonic() - started,
                current_date=_date_of(found),
                note="the source systems are already filled",
            )
        progress("emptying the source systems")
        stores.oltp.write_state(replace(wanted, status="filling"))
        stores.oltp.rebuild_schema()
        stores.oltp.commit()
        if stores.documents is not None:
            stores.documents.rebuild()
        if stores.stream is not None:
            stores.stream.rebuild()
        progress("writing the reference data set")
        _write_reference(stores)
        progress("adding keys and indexes")
        stores.oltp.add_constraints()
        if stores.documents is not None:
            stores.documents.add_indexes()
        if stores.stream is not None:
            stores.stream.flush()
        stores.oltp.write_state(wanted)
        stores.oltp.commit()
        return SimulationReport(
            rows=stores.rows(),
            seconds=time.monotonic() - started,
            current_date=_date_of(wanted),
            changed=True,
            note=f"filled with the {wanted.dataset} data set",
        )


def advance(settings: Settings, endpoints: Endpoints, days: int, progress: Progress) -> SimulationReport:
    raise NotImplementedError


def _write_reference(stores: Stores) -> None:
    for table in TABLES:
        stores.oltp.copy_csv(table, reference.oltp_csv(table))
    if stores.documents is not None:
        for collection in INDEXES:
            stores.documents.insert(collection, reference.documents(collection))
    if stores.stream is not None:
        stores.stream.produce(reference.messages())


@contextmanager
def _open(settings: Settings, endpoints: Endpoints) -> Iterator[Stores]:
    with ExitStack() as stack:
        assert endpoints.postgres_admin_uri is not None  # noqa: S101  # the callers have answered for it
        oltp = stack.enter_context(OltpStore.open(endpoints.postgres_admin_uri))
        if not oltp.try_lock():
            raise AlreadyRunning(
                "another simulation is writing to the source systems", todo="wait for it to end, then run this again"
            )
        documents = (
            stack.enter_context(DocumentStore.open(endpoints.mongodb_admin_uri))
            if endpoints.mongodb_admin_uri is not None
            else None
        )
        stream = (
            stack.enter_context(StreamStore.open(endpoints.kafka_bootstrap))
            if endpoints.kafka_bootstrap is not None and settings.kafka_bootstrap is None
            else None
        )
        yield Stores(oltp, documents, stream)


def _wanted_state(settings: Settings) -> State:
    return State(
        dataset=settings.dataset,
        seed=settings.sim_seed,
        transactions=settings.sim_transactions,
        days=settings.sim_days,
        start_date=settings.sim_start,
        current_day=settings.sim_days,
        target_day=settings.sim_days,
        status="ready",
    )


def _date_of(state: State) -> dt.date:
    if state.dataset == "reference":
        return reference.CURRENT_DATE
    return state.start_date + dt.timedelta(days=state.current_day)


def _refuse_other_company(found: State, wanted: State) -> None:
    def name(state: State) -> tuple[object, ...]:
        if state.dataset == "reference":
            return (state.dataset,)
        return state.dataset, state.seed, state.transactions, state.days, state.start_date

    if name(found) != name(wanted):
        raise ConfigurationError(
            f"the source systems hold the {found.dataset} data set with seed {found.seed}, "
            f"{found.transactions} transactions over {found.days} days; the settings ask for another one",
            kept="the source systems as they are",
            todo="give the other data set its own WAREHOUSE_HOME, or set DATASET, SIM_SEED, SIM_TRANSACTIONS, "
            "SIM_DAYS and SIM_START back",
        )
