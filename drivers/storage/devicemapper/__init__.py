"""Thin provisioning in user space: a pool that keeps dm-thin's rules (see :mod:`.thinpool`)."""
