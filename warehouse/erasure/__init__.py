"""Erasure of a subject from everything the platform has written; the sources themselves are not touched."""

from warehouse.erasure.receipt import Receipt
from warehouse.erasure.run import ErasureIncomplete, erase, verify_receipts

__all__ = ["ErasureIncomplete", "Receipt", "erase", "verify_receipts"]
