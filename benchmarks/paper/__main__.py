"""Run the benchmark: train, measure, report."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import platformdirs

from benchmarks.paper.experiments import EXPERIMENTS
from benchmarks.paper.images import MissingData
from benchmarks.paper.judging import Judge, Ledger
from benchmarks.paper.measuring import measure_all
from benchmarks.paper.served import Registry
from benchmarks.paper.trainings import FULL, QUICK, Nets, one_thread, train_all
from examples.local_service import local_service
from service.client.client import Client


def main() -> int:
    """Answers the exit code."""
    given = _arguments()
    given.cache.mkdir(parents=True, exist_ok=True)
    nets = Nets(QUICK if given.quick else FULL, given.cache)
    try:
        if not (given.measure or given.report):
            train_all(nets, tell)
        if not (given.train or given.report):
            measure(nets, given.again)
    except (MissingData, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def measure(nets: Nets, again: list[str]) -> None:
    """Start a service of its own, and measure through it what can be measured by now."""
    tell("starting a service")
    with (
        local_service() as service,
        Client(service.url, service.token) as client,
        tempfile.TemporaryDirectory(prefix="patchbay-paper-") as folder,
        one_thread(),
    ):
        judge = Judge(nets, Ledger(nets.cache / f"judged-{nets.plan.name}.jsonl"))
        measure_all(Registry(client, nets, Path(folder)), judge, again, tell)


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
    parser.add_argument(
        "--again",
        nargs="+",
        choices=EXPERIMENTS,
        default=[],
        help="measure these experiments again; what gives the same bytes is not judged again",
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--train", action="store_true", help="only train")
    only.add_argument("--measure", action="store_true", help="only measure what is trained")
    only.add_argument("--report", action="store_true", help="only report what is measured")
    return parser.parse_args()


def tell(text: str) -> None:
    """Say what happens now."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
