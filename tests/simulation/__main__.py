"""Run many seeds: ``python -m tests.simulation --seeds 1000000``; a failing one is printed with its reason."""

import argparse
import random
import sys
import time
from typing import Any

from tests.simulation.crowds import Crowds
from tests.simulation.loop import Stuck, run
from tests.simulation.sealing import Sealing
from tests.simulation.world import World


def fault_of(seed: int, world: type[Any] = World) -> str | None:
    """Run one history and return what was wrong with it."""
    chance = random.Random(seed)
    try:
        run(chance, world(chance).run())
    except Stuck:
        return "stuck: someone waits for what has already happened"
    except Exception as error:  # noqa: BLE001  whatever it is, the seed that shows it is to be known
        return f"{type(error).__name__}: {error}"
    return None


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    options.add_argument("--seeds", type=int, default=2_000)
    options.add_argument("--world", choices=("log", "crowds", "sealing"), default="log")
    options.add_argument("--first", type=int, default=0, help="the seed to begin with")
    chosen = options.parse_args()
    world = {"log": World, "crowds": Crowds, "sealing": Sealing}[chosen.world]
    started = time.monotonic()
    failed = 0
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        fault = fault_of(seed, world)
        if fault:
            failed += 1
            print(f"seed {seed}: {fault}")
    print(f"{chosen.seeds} seeds, {failed} failed, {time.monotonic() - started:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
