"""The version, where it costs nothing to read; a test keeps it equal to pyproject.toml."""

VERSION = "0.1.0"
