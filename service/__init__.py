"""Tailrace: workflows whose every event is kept, and whose every run can be watched from its start."""
