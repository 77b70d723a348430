"""Runs workflows: the only writer of run streams; meets the API in the log alone."""
