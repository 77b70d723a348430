"""``python -m tests.attacks readers --count 1000 --seed 3`` makes one attack and prints the faults it has found."""

import argparse
import sys
import time

from tests.attacks.attacks import ATTACKS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    parser.add_argument("attack", choices=ATTACKS)
    parser.add_argument("--count", type=int, help="the large figure unless given")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    attack = ATTACKS[asked.attack]
    if reason := attack.why_not():
        print(f"skipped: {reason}")
        return 0
    count = asked.count or attack.large
    began = time.monotonic()
    faults = attack.run(count, asked.seed)
    for fault in faults[:50]:
        print(fault)
    print(f"count={count} faults={len(faults)} seconds={time.monotonic() - began:.0f}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
