"""Settings and other leaves of operation, imported by app and api only."""
