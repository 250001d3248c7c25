"""Benchmarks: every figure beside a rival or the bare kernel cost."""
