"""The conformance kit and test helpers that driver authors inherit."""
