"""dlt without its surroundings: no telemetry, no log of values, no `.dlt` folder, no environment variables.

dlt asks a run context for its folders and its configuration. Ours answers from constants, for as long as the
`with` block lasts, and whatever context the caller had comes back afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dlt.common.configuration.container import Container
from dlt.common.configuration.providers import CustomLoaderDocProvider
from dlt.common.configuration.providers.provider import ConfigProvider
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.runtime.run_context import RunContext

OPTIONS: dict[str, Any] = {
    "runtime": {
        "dlthub_telemetry": False,
        "log_level": "CRITICAL",  # dlt logs the database's own messages, which may quote a value
        "intercept_signals": False,
    },
    # a trace is a pickle of everything that happened: nothing reads it here
    "enable_runtime_trace": False,
    "normalize": {"model_normalizer": {"add_dlt_load_id": True, "add_dlt_id": False}},
    "load": {
        "delete_completed_jobs": True,
        "truncate_staging_dataset": True,
        # a local database that refused once refuses again; the package stays pending
        "raise_on_max_retries": 1,
    },
}
"""dlt's configuration, whole."""


class HomeRunContext(RunContext):
    """All of dlt's folders are one folder of ours, and its configuration is :data:`OPTIONS`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._folder = str(folder)
        self._global_dir = str(folder)

    @property
    def run_dir(self) -> str:
        """Ours, whatever DLT_PROJECT_DIR says."""
        return self._folder

    @property
    def local_dir(self) -> str:
        """Ours, whatever DLT_LOCAL_DIR says."""
        return self._folder

    @property
    def data_dir(self) -> str:
        """Ours, whatever DLT_DATA_DIR says."""
        return self._folder

    def initial_providers(self) -> list[ConfigProvider]:
        """Neither the environment nor a TOML file: a stray variable must not redirect a load."""
        return [CustomLoaderDocProvider("warehouse", lambda: OPTIONS)]


@contextmanager
def quiet_dlt(folder: Path) -> Iterator[None]:
    """Run dlt under :data:`OPTIONS` with everything it writes below `folder`."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with Container().injectable_context(PluggableRunContext(HomeRunContext(folder))):
        yield
