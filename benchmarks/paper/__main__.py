"""Run the benchmark: train, measure, report."""

import argparse
import sys
import time
from pathlib import Path

import platformdirs

from benchmarks.paper.images import MissingData
from benchmarks.paper.trainings import FULL, QUICK, Nets, train_all


def main() -> int:
    """Answers the exit code."""
    given = _arguments()
    given.cache.mkdir(parents=True, exist_ok=True)
    nets = Nets(QUICK if given.quick else FULL, given.cache)
    try:
        train_all(nets, tell)
    except MissingData as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper",
        description=sys.modules["benchmarks.paper"].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small trainings, one seed")
    parser.add_argument(
        "--cache",
        type=Path,
        default=platformdirs.user_cache_path("patchbay-paper"),
        help="where nets and measurements are kept (default: %(default)s)",
    )
    parser.add_argument("--train", action="store_true", help="only train")
    return parser.parse_args()


def tell(text: str) -> None:
    """Say what happens now."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
