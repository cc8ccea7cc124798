"""``python -m tests.bench [NAME ...] [OPTIONS]``: every benchmark, or those named; each prints its table.

Side by side in one run with what a user would pick instead, as ratios: the machines that this runs on are noisy, and a
figure alone says nothing. Options are those of the benchmark that is named.
"""

import importlib
import sys
from pathlib import Path

NOT_BENCHMARKS = {"__init__", "__main__", "download_report", "plot", "report"}


def main() -> int:
    there = sorted({path.stem for path in Path(__file__).parent.glob("*.py")} - NOT_BENCHMARKS)
    given = sys.argv[1:]
    split = next((index for index, word in enumerate(given) if word.startswith("-")), len(given))
    names, options = given[:split] or there, given[split:]
    if unknown := set(names) - set(there):
        print(f"There is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(there)}.", file=sys.stderr)
        return 2
    for name in names:
        print(f"\n== {name} ==", flush=True)
        sys.argv = [name, *options]
        importlib.import_module(f"tests.bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
