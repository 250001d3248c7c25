"""Drivers that come with Stowage, registered like anyone else's."""
