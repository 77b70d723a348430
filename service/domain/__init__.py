"""What events mean. Pure: no clock, no randomness, no I/O, nothing async, nothing of storing."""
