"""Fill the source systems once, move them forward later, and survive being killed in between."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import AlreadyRunning, ConfigurationError
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import Settings
from warehouse.simulation import reference
from warehouse.simulation.company import Stretch, live
from warehouse.simulation.report import SimulationReport
from warehouse.simulation.stores import Stores
from warehouse.simulation.stores.documents import INDEXES, DocumentStore
from warehouse.simulation.stores.oltp import TABLES, OltpStore, State
from warehouse.simulation.stores.stream import StreamStore
from warehouse.simulation.world import World

_NOT_OURS = "PostgreSQL is not ours to fill: nothing was simulated"


def fill(settings: Settings, endpoints: Endpoints, progress: Progress = silent) -> SimulationReport:
    """Write the data set of the settings, unless it is already there.

    A fill that was killed is emptied and done again; an advance that was killed is completed.

    Raises:
        SourceUnavailable: a system does not answer; what is half-filled is filled again next time.
        ConfigurationError: the systems hold another data set.
        AlreadyRunning: another simulation is writing to them.
    """
    started = time.monotonic()
    if endpoints.postgres_admin_uri is None:
        return SimulationReport(note=_NOT_OURS)
    wanted = _wanted_state(settings)
    with _open(settings, endpoints) as stores:
        found = stores.oltp.read_state()
        stores.oltp.commit()
        if found is not None and found.status != "filling" and stores.are_filled():
            _refuse_other_company(found, wanted)
            if found.status == "advancing":
                return _advance(stores, found, found.target_day, progress, started)
            return SimulationReport(
                seconds=time.monotonic() - started,
                current_date=_date_of(found),
                note="the source systems are already filled",
            )
        _fill(stores, wanted, progress)
        return SimulationReport(
            rows=stores.rows(),
            seconds=time.monotonic() - started,
            current_date=_date_of(wanted),
            changed=True,
            note=f"filled with the {wanted.dataset} data set",
        )


def advance(settings: Settings, endpoints: Endpoints, days: int, progress: Progress = silent) -> SimulationReport:
    """Let the company live `days` further days: new people, shops and payments, and what becomes of the older ones.

    PostgreSQL changes in one transaction. MongoDB documents are written under fixed ids and events may be
    redelivered, so an advance that was killed is simply done again, by this call or the next fill.

    Raises:
        ConfigurationError: nothing is simulated here, or it is the reference data set, which does not move.
        SourceUnavailable: a system does not answer.
        AlreadyRunning: another simulation is writing to them.
    """
    started = time.monotonic()
    if days < 1:
        raise ConfigurationError("a company can only be moved forward by one day or more", todo="give --days 1 or more")
    if endpoints.postgres_admin_uri is None:
        return SimulationReport(note=_NOT_OURS)
    with _open(settings, endpoints) as stores:
        found = stores.oltp.read_state()
        stores.oltp.commit()
        if found is None or found.status == "filling":
            raise ConfigurationError("there is no company to move forward yet", todo="run `warehouse simulate` first")
        if found.dataset == "reference":
            raise ConfigurationError(
                "the reference data set does not move: it is the same in every installation",
                todo="use DATASET=company, in a WAREHOUSE_HOME of its own",
            )
        # A killed advance is completed first, so that its half-written days are not left behind.
        target = found.target_day if found.status == "advancing" else found.current_day + days
        return _advance(stores, found, target, progress, started)


def _fill(stores: Stores, wanted: State, progress: Progress) -> None:
    progress("emptying the source systems")
    stores.oltp.write_state(replace(wanted, status="filling"))
    stores.oltp.rebuild_schema()
    stores.oltp.commit()
    if stores.documents is not None:
        stores.documents.rebuild()
    if stores.stream is not None:
        stores.stream.rebuild()
    progress("the reference data set")
    _write_reference(stores)
    if wanted.dataset == "company":
        live(Stretch(_world_of(wanted), 0, wanted.days, is_fill=True), stores, progress)
    if stores.stream is not None:
        stores.stream.flush()
    progress("keys and indexes")
    stores.oltp.add_constraints()
    if stores.documents is not None:
        stores.documents.add_indexes()
    stores.oltp.write_state(wanted)
    stores.oltp.commit()


def _advance(stores: Stores, found: State, target_day: int, progress: Progress, started: float) -> SimulationReport:
    stores.oltp.write_state(replace(found, target_day=target_day, status="advancing"))
    stores.oltp.commit()
    live(Stretch(_world_of(found), found.current_day, target_day, is_fill=False), stores, progress)
    if stores.stream is not None:
        stores.stream.flush()
    reached = replace(found, current_day=target_day, target_day=target_day, status="ready")
    stores.oltp.write_state(reached)
    stores.oltp.commit()
    return SimulationReport(
        rows=stores.rows(),
        seconds=time.monotonic() - started,
        current_date=_date_of(reached),
        changed=True,
        note=f"moved forward by {target_day - found.current_day} days",
    )


def _world_of(state: State) -> World:
    return World(state.seed, state.transactions, state.days, state.start_date)


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
