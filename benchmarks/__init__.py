"""Runs pacslite beside its peers on one machine, in one run, and prints medians and ratios.

The clients here are written from the standard's field tables and import nothing of pacslite: a judge shares no code
with the judged. ``python -m benchmarks --help`` tells how to run them; docs/performance.md what they said.
"""
