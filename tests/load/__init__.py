"""A day's worst company for half an hour: idle, slow and healthy watchers at once, and what they cost."""
