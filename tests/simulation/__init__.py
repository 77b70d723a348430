"""Seeded runs of the log on a virtual clock: a seed is a whole history, and it comes back exactly."""
