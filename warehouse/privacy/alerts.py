"""From the audit log to whoever is on call: detections run over it, alerts go to a file, a webhook and syslog.

The file (`alerts/alerts.jsonl`, 0600) is also the memory of what was delivered where: an alert that a sink did not
take is offered again on the next round, and one that was taken is never sent twice, whatever was killed in between.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson

from warehouse.core.errors import WarehouseError
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.privacy.audit import events, verify
from warehouse.privacy.detections import DETECTIONS, Alert, Engine
from warehouse.privacy.ocsf import DATASTORE, PRODUCT, Actor, envelope

POLL_SECONDS = 0.5
TIMEOUT_SECONDS = 5.0
SYSLOG_TLS_PORT, SYSLOG_UDP_PORT, HTTPS_PORT = 6514, 514, 443
_CEF_SEVERITY = {"low": 3, "medium": 5, "high": 8, "critical": 10}
_SYSLOG_SEVERITY = {"low": 5, "medium": 4, "high": 3, "critical": 2}
_SECURITY_FACILITY = 4


class Sink(Protocol):
    """Somewhere an alert goes."""

    @property
    def name(self) -> str:
        """In the file of alerts."""

    def send(self, alert: Alert) -> None:
        """Deliver it.

        Raises:
            OSError: it was not taken.
        """


class Refused(OSError):
    """A webhook answered, but not with 2xx."""


@dataclass(frozen=True)
class Webhook:
    """POST as JSON; TLS verified, no redirect followed, no proxy."""

    url: str = field(repr=False)
    name: str = "webhook"

    def send(self, alert: Alert) -> None:
        """Any answer but 2xx is not taken."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(
                host, parts.port or HTTPS_PORT, timeout=TIMEOUT_SECONDS, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_SECONDS)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", path, orjson.dumps(alert.to_dict()), {"Content-Type": "application/json"})
            status = connection.getresponse().status
        except http.client.HTTPException as error:
            raise OSError(type(error).__name__) from None
        finally:
            connection.close()
        if not 200 <= status < 300:
            raise Refused(status)


@dataclass(frozen=True)
class Syslog:
    """CEF in RFC 5424 messages: over TLS (RFC 5425), or UDP on this machine."""

    address: str
    name: str = "syslog"

    def send(self, alert: Alert) -> None:
        """UDP does not say whether it was taken."""
        parts = urlsplit(self.address)
        host = parts.hostname or ""
        priority = _SECURITY_FACILITY * 8 + _SYSLOG_SEVERITY[alert.severity]
        message = f"<{priority}>1 {alert.time} {socket.gethostname()} {PRODUCT} - - - {cef(alert)}".encode()
        if parts.scheme == "udp":
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as datagram:
                datagram.sendto(message, (host, parts.port or SYSLOG_UDP_PORT))
            return
        context = ssl.create_default_context()
        with (
            socket.create_connection((host, parts.port or SYSLOG_TLS_PORT), timeout=TIMEOUT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as stream,
        ):
            stream.sendall(b"%d " % len(message) + message)


def cef(alert: Alert) -> str:
    """ArcSight's Common Event Format, escaped: no name can end a field or begin another one."""
    head = (PRODUCT, PRODUCT, "1", alert.detection, alert.why)
    fields = {
        "rt": str(int(datetime.fromisoformat(alert.time).timestamp() * 1000)),
        "suser": alert.user,
        "src": alert.address,
        "act": alert.code,
        "externalId": alert.event,
        "cs1Label": "resources",
        "cs1": ", ".join(alert.resources),
    }
    header = "|".join(_line(part).replace("\\", "\\\\").replace("|", "\\|") for part in head)
    extension = " ".join(
        f"{name}={_line(value).replace(chr(92), chr(92) * 2).replace('=', chr(92) + '=')}"
        for name, value in fields.items()
    )
    return f"CEF:0|{header}|{_CEF_SEVERITY[alert.severity]}|{extension}"


@dataclass(frozen=True)
class Undelivered:
    """An alert that a sink did not take; it is offered again."""

    alert: Alert
    sink: str
    reason: str


@dataclass(frozen=True)
class Round:
    """What one look at the log found."""

    new: tuple[Alert, ...]
    undelivered: tuple[Undelivered, ...]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "alerts": [alert.to_dict() for alert in self.new],
            "undelivered": [
                {"alert": item.alert.id, "sink": item.sink, "reason": item.reason} for item in self.undelivered
            ],
        }


class AlertsUnwritable(WarehouseError):
    """The file of alerts cannot be written."""


def sinks_of(settings: Settings) -> list[Sink]:
    """What is configured, besides the file."""
    found: list[Sink] = []
    if settings.alert_webhook:
        found.append(Webhook(settings.alert_webhook.get_secret_value()))
    if settings.alert_syslog:
        found.append(Syslog(settings.alert_syslog))
    return found


class Watch:
    """Looks at the audit log as often as it is asked to, and tells what is new."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home = Home.of(settings)
        self._sinks = sinks_of(settings)
        self._engine = Engine(DETECTIONS)
        self._offset = 0
        self._pending: dict[str, Alert] = {}
        self._delivered = self._load_delivered()

    def look(self, more: Iterable[dict[str, Any]] = (), *, check_log: bool = True) -> Round:
        """Run the detections over what was logged since the last look, and over `more`; deliver what they find.

        Args:
            more: further events, such as Snowflake's.
            check_log: verify the log's chain, too: a log that was tampered with is an alert.

        Raises:
            AlertsUnwritable: the file of alerts cannot be written.
        """
        found = list(self._engine.run(self._fresh()))
        if check_log:
            found += self._engine.run(self._tampering())
        found += Engine(DETECTIONS).run(sorted(more, key=lambda event: event["time"]))
        new = []
        for alert in found:
            if "file" not in self._delivered[alert.id]:
                new.append(alert)
            self._pending[alert.id] = alert
        failures = [failure for alert in list(self._pending.values()) for failure in self._deliver(alert)]
        return Round(tuple(new), tuple(failures))

    def _fresh(self) -> Iterator[dict[str, Any]]:
        """Complete lines that were not read yet; a line that is still being written waits."""
        path = self._home.audit
        if not path.exists():
            return
        if path.stat().st_size < self._offset:
            self._offset = 0  # another log: what was told before is not told again
        with path.open("rb") as log:
            log.seek(self._offset)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        yield from events(whole.splitlines())

    def _tampering(self) -> Iterator[dict[str, Any]]:
        result = verify(self._settings)
        if not result.intact:
            at = datetime.now(UTC)
            # one alert a day and state of the log
            uid = uuid.uuid5(uuid.NAMESPACE_OID, f"{at:%Y-%m-%d}|{result.head}|{result.problems}").hex
            yield envelope(
                DATASTORE, 1, "audit_verify", actor=Actor.current(), outcome="failure", at=at, uid=f"audit-{uid}"
            )

    def _deliver(self, alert: Alert) -> Iterator[Undelivered]:
        taken = self._delivered[alert.id]
        fresh = []
        for sink in self._sinks:
            if sink.name in taken:
                continue
            try:
                sink.send(alert)
                fresh.append(sink.name)
            except OSError as error:
                yield Undelivered(alert, sink.name, type(error).__name__)
        if "file" not in taken:
            fresh.append("file")
        if fresh:
            self._remember(alert, fresh)
        if taken.issuperset(sink.name for sink in self._sinks):
            self._pending.pop(alert.id, None)

    def _remember(self, alert: Alert, sinks: list[str]) -> None:
        line = orjson.dumps(alert.to_dict() | {"delivered": sinks}) + b"\n"
        try:
            self._home.alerts.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._home.alerts, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(line)
        except OSError as error:
            raise AlertsUnwritable(
                f"the file of alerts cannot be written ({type(error).__name__})",
                kept="what webhook and syslog took, they have",
                todo=f"look for a full disk: {self._home.alerts.parent}",
            ) from None
        self._delivered[alert.id].update(sinks)

    def _load_delivered(self) -> defaultdict[str, set[str]]:
        delivered: defaultdict[str, set[str]] = defaultdict(set)
        if self._home.alerts.exists():
            for line in self._home.alerts.read_bytes().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:  # torn by a kill: that alert is told again
                    continue
                delivered[entry["id"]].update(entry["delivered"])
        return delivered


def follow(
    settings: Settings,
    show: Callable[[Round], None],
    *,
    rounds: int | None = None,
    poll_seconds: float = POLL_SECONDS,
    verify_seconds: float = 60.0,
) -> None:
    """Look again and again; the chain is verified once a minute, because that reads the whole log.

    Args:
        settings: whose log.
        show: called with every round that found or failed to deliver something.
        rounds: stop after so many; None: never.
        poll_seconds: between two looks.
        verify_seconds: between two verifications of the chain.
    """
    watch, verified, done = Watch(settings), float("-inf"), 0
    while rounds is None or done < rounds:
        is_due = time.monotonic() - verified >= verify_seconds
        if is_due:
            verified = time.monotonic()
        result = watch.look(check_log=is_due)
        if result.new or result.undelivered:
            show(result)
        done += 1
        time.sleep(poll_seconds)


def _line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
