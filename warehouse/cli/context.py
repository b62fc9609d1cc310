"""What commands share: settings with their keys, and the record that each leaves in the audit log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from warehouse.core.errors import DropsRefused
from warehouse.core.keys import TOKEN_KEY, create_missing_keys, key_versions
from warehouse.core.settings import CATALOG, Settings, get_settings, load_settings
from warehouse.privacy.audit import record
from warehouse.privacy.ocsf import Activity, Actor, Resource, file_resource


def ready_settings(target: str | None = None) -> Settings:
    """The settings, with keys made on first use (and recorded)."""
    settings = get_settings() if target is None else load_settings(dbt_target=target)
    made = create_missing_keys(settings)
    if "warehouse" in made:
        get_settings.cache_clear()
        settings = get_settings() if target is None else load_settings(dbt_target=target)
    if made:
        keys = [Resource("key", name) for name in made]
        record(settings, Activity.KEY_CREATE, actor=Actor.current(), outcome="success", resources=keys)
    return settings


@dataclass
class Trail:
    """What a command adds to its own record while it runs."""

    resources: list[Resource] = field(default_factory=list)
    rows: int | None = None


def _key_names(settings: Settings, key: str) -> list[str]:
    """A token takes the keys of every version, because each wraps the one before."""
    return [f"{key}_v{version}" for version in key_versions(settings, key)] if key == TOKEN_KEY else [key]


@contextmanager
def audited(
    settings: Settings,
    activity: Activity,
    *,
    keys: Sequence[str] = (),
    role: str | None = None,
    statement: str | None = None,
    announce: bool = False,
) -> Iterator[Trail]:
    """Record what the body does when it has ended, also when it failed. Show results only after this.

    Args:
        settings: whose log.
        activity: what the body does.
        keys: the keys that it uses; `TOKEN_KEY` stands for those of all its versions.
        role: as whom.
        statement: its SQL, of which a keyed digest is kept.
        announce: record the start too: for what changes something and may be killed.

    Raises:
        AuditError: it cannot be recorded; with `announce`, before the body runs.
    """
    actor = Actor.current(role)
    used = [Resource("key", name) for key in keys for name in _key_names(settings, key)]
    trail = Trail([Resource("database", CATALOG)])
    if announce:
        record(settings, activity, actor=actor, outcome="started", resources=[*trail.resources, *used])
    try:
        yield trail
    except BaseException as error:
        everything = [*trail.resources, *used]
        if isinstance(error, DropsRefused):
            everything += [file_resource(f"drops/{label}") for label in error.labels]
        failure = type(error).__name__
        record(
            settings,
            activity,
            actor=actor,
            outcome="failure",
            resources=everything,
            statement=statement,
            error=failure,
        )
        raise
    record(
        settings,
        activity,
        actor=actor,
        outcome="success",
        resources=[*trail.resources, *used],
        statement=statement,
        rows=trail.rows,
    )
