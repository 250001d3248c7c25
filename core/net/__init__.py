"""Networks as the core sees them: sandboxes, endpoints, name files."""
