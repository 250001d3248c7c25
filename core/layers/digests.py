"""The digests that name layers (OCI image-spec, config.md, "Layer DiffID" and "Layer ChainID")."""

from __future__ import annotations

import hashlib


def digest_of(raw: bytes) -> str:
    """Return ``sha256:<hex>`` for a digest of 32 bytes."""
    return f"sha256:{raw.hex()}"


def chain_id(parent: str | None, diff_id: str) -> str:
    """Return the chainID of a layer with *diff_id* on top of the chain *parent* (None: no parent).

    A chainID names the whole stack, so equal ones mean equal contents of the merged tree.
    """
    if parent is None:
        return diff_id
    return digest_of(hashlib.sha256(f"{parent} {diff_id}".encode()).digest())
