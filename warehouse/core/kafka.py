"""How every Kafka client of ours connects: one configuration, TLS with the broker's name verified."""

from __future__ import annotations

from warehouse.core.settings import Settings


def client_config(settings: Settings, bootstrap: str) -> dict[str, str | int | bool]:
    """librdkafka's connection settings for `bootstrap`. Holds the password: never print it."""
    config: dict[str, str | int | bool] = {"bootstrap.servers": bootstrap, "log_level": 0}
    if settings.kafka_security == "plaintext":
        return config
    config |= {"security.protocol": settings.kafka_security.upper(), "ssl.endpoint.identification.algorithm": "https"}
    if settings.kafka_ca_file is not None:
        config["ssl.ca.location"] = str(settings.kafka_ca_file)
    if settings.kafka_security == "sasl_ssl" and settings.kafka_password is not None:
        config |= {
            "sasl.mechanism": settings.kafka_sasl_mechanism,
            "sasl.username": settings.kafka_username or "",
            "sasl.password": settings.kafka_password.get_secret_value(),
        }
    return config
