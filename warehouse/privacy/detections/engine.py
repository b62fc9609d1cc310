"""Runs detections over a stream of events, with bounded memory."""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from warehouse.privacy.detections.events import Seen

Severity = Literal["low", "medium", "high", "critical"]
Rule = Callable[[Seen], bool]


@dataclass(frozen=True)
class Detection:
    """One thing worth waking somebody for.

    It fires on an event that `when` accepts, if within the last `within` seconds events of the same `same` that
    `counting` accepts (default: `when`, and then the event itself counts) add up to `at_least`: their number, the sum
    of `measure`, or the number of different values of `different`. After an alert its count starts anew.
    """

    name: str
    severity: Severity
    why: str
    when: Rule
    counting: Rule | None = None
    at_least: int = 1
    within: float = 0
    same: Callable[[Seen], str] = lambda event: event.user
    measure: Callable[[Seen], int] | None = None
    different: Callable[[Seen], str] | None = None


@dataclass(frozen=True)
class Alert:
    """What was detected: names and counts, no value."""

    id: str
    """The same for the same detection and event, so that nothing is told twice."""
    detection: str
    severity: Severity
    why: str
    time: str
    """Of the event, ISO 8601, UTC."""
    user: str
    address: str
    code: str
    resources: tuple[str, ...]
    event: str

    def to_dict(self) -> dict[str, Any]:
        """For sinks and `--json`."""
        return {
            "id": self.id,
            "detection": self.detection,
            "severity": self.severity,
            "why": self.why,
            "time": self.time,
            "user": self.user,
            "address": self.address,
            "code": self.code,
            "resources": list(self.resources),
            "event": self.event,
        }


class Engine:
    """Feed it events in the order of time."""

    def __init__(self, detections: Sequence[Detection]) -> None:
        self._detections = detections
        self._windows: dict[tuple[str, str], deque[Seen]] = defaultdict(deque)

    def run(self, events: Iterable[dict[str, Any]]) -> Iterator[Alert]:
        """The alerts of a stream."""
        for event in events:
            yield from self.feed(event)

    def feed(self, event: dict[str, Any]) -> list[Alert]:
        """The alerts that one event raises."""
        seen = Seen(event)
        return [_alert(detection, seen) for detection in self._detections if self._fires(detection, seen)]

    def _fires(self, detection: Detection, seen: Seen) -> bool:
        if detection.within == 0:
            return detection.when(seen)
        counting = detection.counting or detection.when
        if not (counts := counting(seen)) and not detection.when(seen):
            return False
        key = (detection.name, detection.same(seen))
        window = self._windows[key]
        while window and window[0].seconds < seen.seconds - detection.within:
            window.popleft()
        if counts:
            window.append(seen)
        if not detection.when(seen) or _total(detection, window) < detection.at_least:
            if not window:
                del self._windows[key]
            return False
        del self._windows[key]
        return True


def _total(detection: Detection, window: Iterable[Seen]) -> int:
    if detection.different is not None:
        return len({detection.different(event) for event in window})
    if detection.measure is not None:
        return sum(detection.measure(event) for event in window)
    return sum(1 for _ in window)


def _alert(detection: Detection, seen: Seen) -> Alert:
    return Alert(
        id=hashlib.sha256(f"{detection.name}|{seen.uid}".encode()).hexdigest()[:32],
        detection=detection.name,
        severity=detection.severity,
        why=detection.why,
        time=seen.at.isoformat(timespec="milliseconds"),
        user=seen.user,
        address=seen.address,
        code=seen.code,
        resources=tuple(f"{item['type']} {item['name']}" for item in seen.raw.get("resources", ())),
        event=seen.uid,
    )
