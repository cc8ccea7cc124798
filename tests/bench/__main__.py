"""``python -m tests.bench [NAME ...]``: every benchmark, or those named; each prints its table.

Side by side in one run with what a user would pick instead, as ratios: the machines that this runs on are noisy, and a
figure alone says nothing.
"""

import importlib
import sys
from pathlib import Path

NOT_BENCHMARKS = {"__init__", "__main__", "plot"}


def main() -> int:
    there = sorted({path.stem for path in Path(__file__).parent.glob("*.py")} - NOT_BENCHMARKS)
    names = sys.argv[1:] or there
    if unknown := set(names) - set(there):
        print(f"There is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(there)}.", file=sys.stderr)
        return 2
    for name in names:
        print(f"\n== {name} ==", flush=True)
        sys.argv = [name]
        importlib.import_module(f"tests.bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
