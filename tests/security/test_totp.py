"""One-time codes: equal to RFC 6238, accepted once, within one step, and not guessed."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.conftest import MakeSettings
from warehouse.core.errors import ConfigurationError
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.privacy.authorisation import NotAllowed, authorise
from warehouse.privacy.totp import CLOSED_SECONDS, MAX_FAILURES, STEP_SECONDS, code_at, demand_code, enrol

NOW = 1_700_000_010.0


@pytest.fixture
def settings(tmp_path: Path, make_settings: MakeSettings) -> Settings:
    settings = make_settings(tmp_path)
    address = enrol(settings, "anna", ["compliance_officer"])
    assert address.startswith("otpauth://totp/payments-warehouse:anna?secret=")
    return settings


def code(settings: Settings, at: float) -> str:
    data = json.loads((Home.of(settings).keys / "totp_anna.json").read_text())
    return code_at(base64.b32decode(data["secret"]), int(at // STEP_SECONDS))


def judged(settings: Settings, given: str, at: float = NOW, role: str = "compliance_officer") -> str | None:
    return demand_code(settings, "anna", role, given, clock=lambda: at)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (1234567890, "005924"),
        (2000000000, "279037"), (20000000000, "353130"),
    ],
)  # fmt: skip
def test_codes_are_those_of_rfc_6238(seconds: int, expected: str) -> None:
    assert code_at(b"12345678901234567890", seconds // STEP_SECONDS) == expected


@pytest.mark.parametrize("skew", [-STEP_SECONDS, 0, STEP_SECONDS])
def test_a_clock_may_be_one_step_off(settings: Settings, skew: int) -> None:
    assert judged(settings, code(settings, NOW + skew)) is None


@pytest.mark.parametrize("skew", [-2 * STEP_SECONDS, 2 * STEP_SECONDS])
def test_an_expired_or_early_code_is_refused(settings: Settings, skew: int) -> None:
    assert judged(settings, code(settings, NOW + skew)) == "the code is wrong or has expired"


def test_a_code_is_accepted_once_and_an_older_one_never_after(settings: Settings) -> None:
    assert judged(settings, code(settings, NOW)) is None
    assert judged(settings, code(settings, NOW)) == "the code was used before"
    assert judged(settings, code(settings, NOW - STEP_SECONDS)) == "the code was used before"
    assert judged(settings, code(settings, NOW + STEP_SECONDS)) is None


def test_guessing_closes_the_account(settings: Settings) -> None:
    wrong = "000000" if code(settings, NOW) != "000000" else "111111"
    for _ in range(MAX_FAILURES):
        assert judged(settings, wrong) == "the code is wrong or has expired"
    assert "closed" in str(judged(settings, code(settings, NOW)))
    later = NOW + CLOSED_SECONDS + 1
    assert judged(settings, code(settings, later), later) is None


def test_the_secret_is_private_and_made_once(settings: Settings) -> None:
    path = Home.of(settings).keys / "totp_anna.json"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigurationError, match="enrolled already"):
        enrol(settings, "anna", ["compliance_officer"])
    assert judged(settings, code(settings, NOW)) is None
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="read by others"):
        judged(settings, "123456")
    path.chmod(0o600)
    path.write_text("{")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        judged(settings, "123456")


@pytest.mark.parametrize("account", ["../x", "", "a/b"])
def test_an_account_is_a_plain_name(settings: Settings, account: str) -> None:
    with pytest.raises(ConfigurationError, match="account"):
        enrol(settings, account, ["compliance_officer"])


def test_a_role_needs_the_power_and_the_enrolment(settings: Settings) -> None:
    with pytest.raises(NotAllowed, match="may not reveal"):
        authorise(settings, "anna", "analyst", "reveal", code(settings, NOW))
    with pytest.raises(NotAllowed, match="not enrolled for the role fraud_analyst"):
        authorise(settings, "anna", "fraud_analyst", "reveal", code(settings, NOW))
    with pytest.raises(ConfigurationError, match="is not enrolled"):
        authorise(settings, "bert", "compliance_officer", "reveal", "123456")
    with pytest.raises(ConfigurationError, match="no role"):
        authorise(settings, "anna", "nobody", "reveal", "123456")
