"""Network drivers; each is its own entry point."""
