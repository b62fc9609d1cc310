"""Detections: each fires on what it is for and not on what resembles it; alerts arrive, in time, and only once."""

from __future__ import annotations

import http.server
import json
import random
import socket
import ssl
import stat
import statistics
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from pydantic import SecretStr
from typer.testing import CliRunner

from tests.conftest import MakeSettings, RecordFigure
from warehouse.cli import context
from warehouse.cli.app import app
from warehouse.core.errors import ConfigurationError
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.privacy import alerts as alerting
from warehouse.privacy.alerts import AlertsUnwritable, Syslog, Watch, Webhook, cef, follow
from warehouse.privacy.audit import record
from warehouse.privacy.detections import DETECTIONS, Alert, Engine
from warehouse.privacy.detections.snowflake import from_snowflake
from warehouse.privacy.ocsf import Activity, Actor, Resource, envelope

FIXTURES = Path(__file__).parent / "detections"
OFFICE = datetime(2024, 1, 3, 9, tzinfo=UTC)
NAMES = [detection.name for detection in DETECTIONS]
BENIGN_EVENTS = 50_000
LATENCY_SAMPLES = 40
ACTOR = Actor("ana", "1000", "host-1", "192.0.2.7", 42)


def events(sequence: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A fixture's sequence as OCSF events."""
    at, number = OFFICE, 0
    for item in sequence:
        for repetition in range(item.get("times", 1)):
            number += 1
            moment = datetime.fromisoformat(item["at"]) if "at" in item else at
            yield event(item, moment, repetition + 1, f"event-{number}")
            at += timedelta(seconds=item.get("every", 10))


def event(item: dict[str, Any], at: datetime, repetition: int, uid: str) -> dict[str, Any]:
    if "snowflake" in item:
        return next(from_snowflake([{"EVENT_TIMESTAMP": at.isoformat(), **item["snowflake"]}]))
    if "sql" in item:
        row = {
            "VIEW": "QUERY_HISTORY",
            "QUERY_ID": uid,
            "QUERY_TEXT": item["sql"],
            "QUERY_TYPE": item["sql"].split()[0].upper(),
            "USER_NAME": "ANA",
            "USER_TYPE": item.get("user_type", "PERSON"),
            "START_TIME": at,
            "EXECUTION_STATUS": item.get("status", "SUCCESS"),
            "ROWS_PRODUCED": item.get("rows", 0),
        }
        return next(from_snowflake([row]))
    actor = Actor(
        item.get("user", "ana").format(n=repetition),
        "1000",
        "host-1",
        item.get("address", "192.0.2.7").format(n=repetition),
        42,
        item.get("role"),
        item.get("kind", "User"),
    )
    made = envelope(
        item.get("class", 6005), 1, item["code"], actor=actor, outcome=item.get("outcome", "success"), at=at, uid=uid
    )
    for kind in ("table", "key", "subject", "file"):
        made["resources"] += [{"type": kind, "name": name} for name in item.get(f"{kind}s", ())]
    return made | {
        "unmapped": {"rows": item.get("rows", 0)},
        "is_mfa": item.get("mfa", False),
        "auth_protocol": item.get("protocol", "saml"),
        "user": {"name": item.get("grantee", "ana")},
        "privileges": item.get("privileges", []),
    }


def fired(sequence: list[dict[str, Any]]) -> set[str]:
    return {alert.detection for alert in Engine(DETECTIONS).run(events(sequence))}


def fixture(name: str) -> dict[str, list[list[dict[str, Any]]]]:
    loaded: dict[str, list[list[dict[str, Any]]]] = yaml.safe_load((FIXTURES / f"{name}.yml").read_text())
    return loaded


def test_there_are_enough_and_each_has_its_fixtures(record_figure: RecordFigure) -> None:
    assert len(NAMES) == len(set(NAMES)) >= 20
    assert sorted(path.stem for path in FIXTURES.glob("*.yml")) == sorted(NAMES)
    record_figure("detections with fixtures", str(len(NAMES)), "20")


@pytest.mark.parametrize("name", NAMES)
def test_it_fires_on_what_it_is_for(name: str) -> None:
    sequences = fixture(name)["true_positive"]
    assert sequences
    for sequence in sequences:
        assert name in fired(sequence), sequence


@pytest.mark.parametrize("name", NAMES)
def test_it_stays_quiet_on_what_resembles_it(name: str) -> None:
    sequences = fixture(name)["benign"]
    assert sequences
    for sequence in sequences:
        assert name not in fired(sequence), sequence


def test_an_alert_is_raised_once_per_burst() -> None:
    burst = [{"code": "query", "outcome": "failure", "times": 15}]
    assert sum(1 for alert in Engine(DETECTIONS).run(events(burst)) if alert.detection == "repeated_failures") == 1


@pytest.mark.parametrize(
    "text", ["select 'secret-value'", "select $$secret-value$$", "copy into 's3://secret-value/x' from t"]
)
def test_no_literal_of_a_statement_gets_into_an_event(text: str) -> None:
    assert "secret-value" not in json.dumps(list(events([{"sql": text}])))


def test_a_row_of_another_view_is_refused() -> None:
    with pytest.raises(ValueError, match="VIEW"):
        list(from_snowflake([{"VIEW": "SESSIONS"}]))


def benign_traffic(count: int) -> Iterator[dict[str, Any]]:
    """What ordinary weeks look like: people ask, services refresh, some statements and logins fail."""
    draw = random.Random(20240101)  # noqa: S311  # repeatable on purpose
    at = OFFICE
    people = [f"person{number}" for number in range(30)]
    homes = {person: f"192.0.2.{number}" for number, person in enumerate(people)}
    for number in range(count):
        at += timedelta(seconds=draw.expovariate(1 / 20))
        person = draw.choice(people)
        kind = draw.random()
        item: dict[str, Any] = {"user": person, "address": homes[person]}
        if kind < 0.70:
            rows = min(int(draw.lognormvariate(5, 2)), 400_000)
            item |= {"code": "query", "tables": ["public.fct_sales"], "keys": ["published"], "rows": rows}
        elif kind < 0.74:
            item |= {"code": "query", "outcome": "failure"}
        elif kind < 0.86:
            item |= {"code": "login", "protocol": draw.choice(["saml", "password"]), "mfa": True}
        elif kind < 0.88:
            item |= {"code": "login", "protocol": "password", "outcome": "failure"}
        elif kind < 0.92:
            item |= {"user": "dbt", "kind": "System", "code": "login", "protocol": "key_pair"}
        elif kind < 0.96:
            item |= {"user": "dbt", "kind": "System", "code": "refresh", "keys": ["warehouse", "vault", "token_v1"]}
        elif kind < 0.98:
            item |= {"sql": draw.choice(["grant select on t to role analyst", "show shares", "create table t (a int)"])}
        elif kind < 0.985 and at.weekday() < 5 and 6 <= at.hour < 20:
            item |= {"code": "reveal", "subjects": ["customer-07"]}
        else:
            item |= {"code": "publish", "keys": ["warehouse", "published"], "rows": 1_500_000}
        yield event(item, at, 1, f"benign-{number}")


def test_benign_traffic_raises_next_to_nothing(record_figure: RecordFigure) -> None:
    raised = list(Engine(DETECTIONS).run(benign_traffic(BENIGN_EVENTS)))
    rate = len(raised) * 10_000 / BENIGN_EVENTS
    record_figure("false alerts per 10,000 benign events", f"{rate:.2f} ({BENIGN_EVENTS:,} events)", "at most 1")
    assert rate <= 1, {alert.detection for alert in raised}


class _Inbox(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted; answers with the server's `status`."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        server.posts.append((time.time(), json.loads(body)))
        self.send_response(server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # the name it is called with
        """Quiet."""


@pytest.fixture
def inbox() -> Iterator[Any]:
    """A webhook on loopback."""
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Inbox)
    server.posts, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def settings(make_settings: MakeSettings, tmp_path: Path, inbox: Any) -> Settings:
    """A home whose alerts go to the inbox."""
    return make_settings(tmp_path / "home", alert_webhook=f"http://127.0.0.1:{inbox.server_port}/hook")


def log_unsealing(settings: Settings) -> None:
    record(settings, Activity.KEY_USE, actor=ACTOR, outcome="success", resources=[Resource("key", "lake")])


def test_alerts_arrive_within_seconds(settings: Settings, inbox: Any, record_figure: RecordFigure) -> None:
    watcher = threading.Thread(target=follow, args=(settings, lambda _: None), kwargs={"rounds": 30}, daemon=True)
    watcher.start()
    sent = []
    for _ in range(LATENCY_SAMPLES):
        sent.append(time.time())
        log_unsealing(settings)
        time.sleep(0.1)
    deadline = time.time() + 20
    while len(inbox.posts) < LATENCY_SAMPLES and time.time() < deadline:
        time.sleep(0.05)
    watcher.join(60)
    assert len(inbox.posts) == LATENCY_SAMPLES
    waits = sorted(arrived - began for (arrived, _), began in zip(inbox.posts, sent, strict=False))
    p95 = statistics.quantiles(waits, n=20)[-1]
    record_figure(
        "alerts, from activity to webhook",
        f"p95 {p95:.2f} s, longest {waits[-1]:.2f} s ({len(waits)} alerts)",
        "p95 at most 5 s",
    )
    assert p95 <= 5


def test_an_alert_is_told_once_and_holds_no_value(settings: Settings, inbox: Any) -> None:
    log_unsealing(settings)
    assert [alert.detection for alert in Watch(settings).look().new] == ["plain_text_unsealed"]
    assert Watch(settings).look().new == ()
    ((_, body),) = inbox.posts
    assert body["user"] == "ana"
    assert body["resources"] == ["key lake"]
    path = Home.of(settings).alerts
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("fault", ["refused", "down"])
def test_what_the_webhook_does_not_take_is_offered_again(settings: Settings, inbox: Any, fault: str) -> None:
    log_unsealing(settings)
    if fault == "refused":
        inbox.status = 503
        watch = Watch(settings)
    else:
        away = settings.model_copy(update={"alert_webhook": SecretStr("http://127.0.0.1:1/hook")})
        watch = Watch(away)
    first = watch.look()
    assert [item.sink for item in first.undelivered] == ["webhook"]
    assert len(first.new) == 1
    inbox.status, inbox.posts[:] = 200, []
    again = Watch(settings).look()  # another process, later
    assert again.undelivered == ()
    assert again.new == ()
    assert len(inbox.posts) == 1


def test_a_redirect_is_not_followed(settings: Settings, inbox: Any) -> None:
    log_unsealing(settings)
    inbox.status = 307
    assert [item.reason for item in Watch(settings).look().undelivered] == ["Refused"]
    assert len(inbox.posts) == 1


def test_tls_to_a_server_without_a_known_certificate_fails(inbox: Any) -> None:
    with pytest.raises((ssl.SSLError, OSError)):
        Webhook(f"https://127.0.0.1:{inbox.server_port}/hook").send(some_alert("ana"))


@pytest.mark.parametrize(
    "name, address",
    [
        ("alert_webhook", "http://alerts.example.org/hook"),
        ("alert_webhook", "https://user:password@alerts.example.org/hook"),
        ("alert_webhook", "ftp://127.0.0.1/"),
        ("alert_syslog", "udp://siem.example.org:514"),
        ("alert_syslog", "tcp://127.0.0.1:514"),
    ],
)
def test_a_plain_address_off_this_machine_is_refused(
    make_settings: MakeSettings, tmp_path: Path, name: str, address: str
) -> None:
    with pytest.raises(ConfigurationError, match=name.upper()) as caught:
        make_settings(tmp_path / "home", **{name: address})
    assert "password" not in str(caught.value)


def some_alert(user: str) -> Alert:
    return Alert(
        "a" * 32, "canary_read", "critical", "a | b", "2024-01-03T09:00:00.000+00:00", user, "::1", "query", (), "e"
    )


def test_cef_cannot_be_broken_out_of() -> None:
    text = cef(some_alert("eve\nCEF:0|x act=refresh \\"))
    assert "\n" not in text
    assert text.startswith("CEF:0|payments-warehouse|payments-warehouse|1|canary_read|a \\| b|10|")
    assert r"suser=eve CEF:0|x act\=refresh \\ " in text


def test_syslog_gets_cef() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        Syslog(f"udp://127.0.0.1:{server.getsockname()[1]}").send(some_alert("ana"))
        message = server.recv(65536).decode()
    assert message.startswith("<34>1 2024-01-03T09:00:00.000+00:00 ")
    assert "CEF:0|payments-warehouse|" in message


def test_a_tampered_log_is_an_alert(settings: Settings) -> None:
    log_unsealing(settings)
    Home.of(settings).audit_head.unlink()
    assert "audit_log_tampered" in {alert.detection for alert in Watch(settings).look().new}


def test_a_full_disk_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    log_unsealing(settings)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    watch = Watch(settings)
    monkeypatch.setattr(alerting.os, "open", full)
    with pytest.raises(AlertsUnwritable, match="cannot be written"):
        watch.look(check_log=False)


def test_the_command(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inbox: Any) -> None:
    monkeypatch.setattr(context, "get_settings", lambda: settings)
    log_unsealing(settings)
    history = tmp_path / "history.jsonl"
    row = {"VIEW": "QUERY_HISTORY", "QUERY_ID": "q", "START_TIME": "2024-01-03T09:00:00Z", "QUERY_TEXT": "drop table t"}
    history.write_bytes(orjson.dumps(row) + b"\n")
    result = CliRunner().invoke(app, ["privacy", "detect", "--snowflake", str(history), "--json"])
    assert result.exit_code == 0, result.stdout
    told = {alert["detection"] for alert in json.loads(result.stdout)["alerts"]}
    assert told == {"plain_text_unsealed", "table_dropped_by_person"}
    assert len(inbox.posts) == 2
    assert "nothing new" in CliRunner().invoke(app, ["privacy", "detect"]).stdout
    inbox.status = 500
    log_unsealing(settings)
    assert CliRunner().invoke(app, ["privacy", "detect"]).exit_code == 1
    history.write_text("{}\n")
    assert CliRunner().invoke(app, ["privacy", "detect", "--snowflake", str(history)]).exit_code == 2
    assert CliRunner().invoke(app, ["privacy", "detect", "--follow", "--rounds", "1"]).exit_code == 0
