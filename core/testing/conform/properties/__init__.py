"""The properties, a module for each family; each is found by its name (see ``..registry``)."""
