"""Measurements, as ratios against a limit or a peer in the same run. `python -m benchmarks` says what there is."""
