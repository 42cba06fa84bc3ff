"""Benchmarks: ``python -m benchmarks``, or one of them by name. They print tables and assert nothing."""
