"""One shape for everything that goes wrong: what happened, what was kept, what to do next."""

from __future__ import annotations


class WarehouseError(Exception):
    """A failure a person can act on.

    Messages never carry a value read from a source: name the table, the column, the position, the rule.

    Args:
        what: what happened, in one sentence.
        kept: what is still intact ("the published warehouse of 09:14 stays readable").
        todo: what to do next.
    """

    exit_code = 1

    def __init__(self, what: str, *, kept: str = "nothing was changed", todo: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.kept = kept
        self.todo = todo

    def __str__(self) -> str:
        lines = [self.what, f"kept: {self.kept}"]
        if self.todo:
            lines.append(f"next: {self.todo}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, str]:
        """The same three answers for `--json`."""
        return {"error": type(self).__name__, "what": self.what, "kept": self.kept, "todo": self.todo}


class ConfigurationError(WarehouseError):
    """A setting is missing, contradictory or refused."""

    exit_code = 2


class SourceUnavailable(WarehouseError):
    """A source system does not answer, refuses the credentials, or lacks a table."""

    exit_code = 3


class SchemaDrift(WarehouseError):
    """A source no longer has the shape that was pinned for it."""

    exit_code = 4


class LoadIncomplete(WarehouseError):
    """What was read and what was landed do not add up; the load is refused."""

    exit_code = 5


class DropsRefused(LoadIncomplete):
    """Files that a partner left did not land; the others have."""

    def __init__(self, what: str, labels: tuple[str, ...], *, kept: str, todo: str) -> None:
        super().__init__(what, kept=kept, todo=todo)
        self.labels = labels
        """Which: `<source>/<table>/<file>`, with nothing in it that a name may not hold."""


class QualityFailure(WarehouseError):
    """An expectation or a model test failed; nothing was published."""

    exit_code = 6


class AlreadyRunning(WarehouseError):
    """Another process holds the warehouse."""

    exit_code = 7
