"""Containers: bundles, runtimes, the monitor and logs."""
