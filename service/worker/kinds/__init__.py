"""The kinds of operations, one file a noun: how each becomes a job, how its outcome is recorded.

The one place that knows both the registry and `compute.jobs`, which are strangers to each other.
"""
