"""Firewall backends: who writes the rules that networks need on the host."""
