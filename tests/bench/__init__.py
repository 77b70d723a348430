"""The benchmark: what we reach beside what a peer or the machine itself reaches, in the same run.

``scripts/bench`` installs the peers and calls it. ``python -m tests.bench`` needs none of them, only Go:
the load (client/) is written in it, to measure the service and not itself.
"""
