"""Images: references, configs and archives."""
