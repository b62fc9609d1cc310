"""Where the three source systems answer, whoever runs them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Endpoints:
    """Addresses with credentials: never print one, never log one.

    `*_admin_uri` is None for systems that are not ours to fill.
    """

    postgres_uri: str | None = field(repr=False)
    mongodb_uri: str | None = field(repr=False)
    kafka_bootstrap: str | None = field(repr=False)
    postgres_admin_uri: str | None = field(default=None, repr=False)
    mongodb_admin_uri: str | None = field(default=None, repr=False)
