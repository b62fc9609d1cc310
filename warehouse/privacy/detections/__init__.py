"""Detections as code: declarations over OCSF events, our own and Snowflake's alike."""

from warehouse.privacy.detections.engine import Alert, Detection, Engine
from warehouse.privacy.detections.rules import DETECTIONS

__all__ = ["DETECTIONS", "Alert", "Detection", "Engine"]
