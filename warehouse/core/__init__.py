"""What everything else stands on: settings, keys, locks, errors, and the only code that opens the warehouse.

Imports nothing else of ours.
"""
