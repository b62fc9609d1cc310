"""The command line: `warehouse`."""

from warehouse.cli.app import main

__all__ = ["main"]
