"""Layers: archives, whiteouts, diff and the layer store."""
