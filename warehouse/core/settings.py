"""One settings object: environment first, then `.env`, then defaults.

Key material is not a setting: the warehouse key is (dbt needs it), every other key lives in
`WAREHOUSE_HOME/keys` and is read by :mod:`warehouse.core.keys` in the process that needs it.
"""

from __future__ import annotations

import datetime as dt
import re
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from warehouse.core.errors import ConfigurationError

PROJECT_ROOT = Path(__file__).resolve().parents[2]
CATALOG = "olap_strip_project"
"""The database name analysts know, in DuckDB and in Snowflake."""

Dataset = Literal["reference", "company"]
Target = Literal["duckdb", "snowflake", "spark"]


class Settings(BaseSettings):
    """Everything that can differ between two installations."""

    model_config = SettingsConfigDict(env_file=PROJECT_ROOT / ".env", extra="ignore", env_ignore_empty=True)

    warehouse_home: Path = Field(Path(".warehouse"), description="where everything the platform writes lives")
    dbt_target: Target = "duckdb"

    postgres_uri: str | None = Field(None, description="your PostgreSQL; unset: an embedded one")
    postgres_publication: str = Field(
        "payments_warehouse",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="what `ingest oltp --follow` hears of; its owner makes it once",
    )
    postgres_slot: str = Field(
        "payments_warehouse",
        pattern=r"^[a-z0-9_]{1,63}$",
        description="where PostgreSQL keeps the place of `ingest oltp --follow`; one per installation",
    )
    mongodb_uri: str | None = Field(None, description="your MongoDB; unset: an embedded one")
    kafka_bootstrap: str | None = Field(None, description="your Kafka brokers; unset: an embedded one")
    kafka_security: Literal["plaintext", "ssl", "sasl_ssl"] = "plaintext"
    kafka_ca_file: Path | None = None
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_username: str | None = None
    kafka_password: SecretStr | None = None
    lake_uri: str | None = Field(None, description="file:// or s3://; unset: WAREHOUSE_HOME/lake")
    drops_uri: str | None = Field(None, description="file:// or s3://; unset: WAREHOUSE_HOME/drops")
    drops_settle_seconds: float = Field(10, ge=0, description="a drop younger than this is looked at twice")
    lake_endpoint: str | None = Field(None, description="an S3 service that is not AWS: https://host[:port]")
    aws_access_key_id: str | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: SecretStr | None = None
    aws_region: str = "us-east-1"

    dataset: Dataset = "company"
    sim_seed: int = 20240101
    sim_transactions: int = Field(50_000, ge=0)
    sim_days: int = Field(90, ge=1, le=3660)
    sim_start: dt.date = dt.date(2024, 1, 1)

    cursor_lag_seconds: int = Field(600, ge=0, description="how far behind the last cursor each run reads again")
    compare_below_rows: int = Field(
        250_000,
        ge=0,
        description="tables up to this size are compared whole each run: deletions and late updates included",
    )
    reconcile_keys_hours: float = Field(
        24, gt=0, description="how often a run compares all keys of larger PostgreSQL tables: deletions"
    )
    memory_limit: str = Field(
        "2GB",
        pattern=r"^[1-9][0-9]*(MB|GB)$",
        description="what landing may hold in memory; beyond it DuckDB spills, encrypted, below WAREHOUSE_HOME",
    )
    warehouse_memory: str | None = Field(
        None,
        pattern=r"^[1-9][0-9]*(MB|GB)$",
        description="what DuckDB may hold in memory during a build; unset: 2.8 GB, or half of a small machine",
    )
    snowflake_account: str | None = None
    snowflake_user: str | None = None
    snowflake_private_key_path: Path | None = Field(None, description="PKCS#8 PEM; there is no password login")
    dbt_env_secret_snowflake_passphrase: SecretStr | None = Field(None, description="opens that key file")
    snowflake_role: str = "TRANSFORMER"
    snowflake_warehouse: str = "TRANSFORMING"
    snowflake_url: str | None = Field(None, description="https:// address; unset: the public one of the account")
    snowflake_lake_stage: str | None = Field(
        None, description="external stage whose URL is LAKE_URI (DATABASE.SCHEMA.NAME); unset: files are sent"
    )
    role_exports: str = Field(
        "analyst",
        pattern=r"^([a-z][a-z0-9_]*(,[a-z][a-z0-9_]*)*)?$",
        description="roles whose export is made with every publish; the others' when `query --role` asks for them",
    )
    backup_folder: Path | None = Field(
        None, description="where `warehouse backup` keeps backups; unset: WAREHOUSE_HOME/backups"
    )
    alert_webhook: SecretStr | None = Field(None, description="https:// address that alerts are posted to")
    alert_syslog: str | None = Field(
        None, description="tls://host[:port] or, on this machine, udp://host:port: alerts as CEF"
    )
    dbt_env_secret_warehouse_key: SecretStr | None = Field(None, description="opens the warehouse; in .env")

    @field_validator("warehouse_home", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser() if value.is_absolute() else (PROJECT_ROOT / value)

    @field_validator("backup_folder", mode="after")
    @classmethod
    def _absolute_backups(cls, value: Path | None) -> Path | None:
        return None if value is None else cls._absolute(value)

    @field_validator("postgres_uri", "mongodb_uri", mode="after")
    @classmethod
    def _encrypted_or_loopback(cls, value: str | None) -> str | None:
        if value is not None:
            refuse_plain_address(value)
        return value

    @field_validator("lake_endpoint", mode="after")
    @classmethod
    def _tls_or_loopback(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if not parts.hostname or parts.path.strip("/") or "@" in parts.netloc:
                raise ValueError("LAKE_ENDPOINT is https://host[:port], without a path or credentials")
            if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
                raise ValueError("LAKE_ENDPOINT is neither loopback nor TLS")
        return value

    @field_validator("snowflake_url", mode="after")
    @classmethod
    def _https_or_loopback(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("SNOWFLAKE_URL is https://host[:port]")
            if parts.scheme == "http" and not _is_loopback(parts.hostname):
                raise ValueError("SNOWFLAKE_URL leaves this machine without TLS: use https://")
        return value

    @field_validator("alert_webhook", mode="after")
    @classmethod
    def _webhook_over_tls(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = urlsplit(value.get_secret_value())
            if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
                raise ValueError("ALERT_WEBHOOK is https://host[:port]/path, without credentials")
            if parts.scheme == "http" and not _is_loopback(parts.hostname):
                raise ValueError("ALERT_WEBHOOK leaves this machine without TLS: use https://")
        return value

    @field_validator("alert_syslog", mode="after")
    @classmethod
    def _syslog_over_tls(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in ("tls", "udp") or not parts.hostname:
                raise ValueError("ALERT_SYSLOG is tls://host[:port] or udp://host[:port]")
            if parts.scheme == "udp" and not _is_loopback(parts.hostname):
                raise ValueError("ALERT_SYSLOG leaves this machine without TLS: use tls://")
        return value

    @field_validator("snowflake_lake_stage", mode="after")
    @classmethod
    def _stage_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*){0,2}", value, re.ASCII):
            raise ValueError("SNOWFLAKE_LAKE_STAGE is NAME, SCHEMA.NAME or DATABASE.SCHEMA.NAME")
        return value

    @field_validator("kafka_bootstrap", mode="after")
    @classmethod
    def _no_scheme(cls, value: str | None) -> str | None:
        if value is not None and "://" in value:
            raise ValueError("KAFKA_BOOTSTRAP is host:port[,host:port], without a scheme")
        return value

    def model_post_init(self, context: object) -> None:
        if self.kafka_bootstrap and self.kafka_security == "plaintext":
            for broker in self.kafka_bootstrap.split(","):
                if not _is_loopback(broker.rsplit(":", 1)[0].strip("[] ")):
                    raise ValueError("KAFKA_BOOTSTRAP leaves this machine without TLS: set KAFKA_SECURITY")


_UNSAFE_OPTIONS = frozenset(
    {
        "host", "hostaddr", "service",
        "tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames", "tlsdisableocspendpointcheck",
    }
)  # fmt: skip


def refuse_plain_address(uri: str) -> None:
    """Raise ValueError when `uri` would carry data off this machine without TLS."""
    parts = urlsplit(uri)
    query = {name.lower(): values[-1].lower() for name, values in parse_qs(parts.query).items()}
    # a client that is told not to look at the certificate, or to go elsewhere, is not told so by an address
    if refused := sorted(_UNSAFE_OPTIONS & query.keys()):
        raise ValueError(f"the {parts.scheme} address must not say {', '.join(refused)}")
    hosts = [part.rsplit("@", 1)[-1] for part in parts.netloc.split(",")]
    if all(_is_loopback(urlsplit(f"//{host}").hostname or "") for host in hosts):
        return
    if parts.scheme == "mongodb+srv" and query.get("tls", "true") == "true":
        return
    if query.get("sslmode") == "verify-full" or query.get("tls") == "true" or query.get("ssl") == "true":
        return
    raise ValueError(
        f"the {parts.scheme} address is neither loopback nor TLS: add sslmode=verify-full (PostgreSQL) "
        "or tls=true (MongoDB)"
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(**overrides: object) -> Settings:
    """Read the settings; a bad one is a ConfigurationError that names it and never prints its value."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # overrides are validated by pydantic itself
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])).upper() or 'settings'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise ConfigurationError(
            f"the settings are not usable: {problems}", todo="correct .env or the environment"
        ) from None
    except PermissionError:
        raise ConfigurationError(".env cannot be read by this user", todo="run as its owner, or chown .env") from None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process."""
    return load_settings()
