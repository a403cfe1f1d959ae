"""Run the benchmark: train, measure, report."""

import argparse
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import platformdirs

from benchmarks.paper.experiments import EXPERIMENTS
from benchmarks.paper.identification import identify_all, outdated
from benchmarks.paper.images import MissingData
from benchmarks.paper.judging import Judge, Ledger
from benchmarks.paper.measuring import measure_all
from benchmarks.paper.report import RESULTS, write
from benchmarks.paper.served import Registry
from benchmarks.paper.trainings import FULL, QUICK, Nets, one_thread, train_all
from examples.local_service import local_service
from service.client.client import Client

STEPS: Final = {
    "train": "only train",
    "measure": "only measure what is trained, and report",
    "report": "only report what is measured",
}


def main() -> int:
    """Answers the exit code."""
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the service is ended too
    given.cache.mkdir(parents=True, exist_ok=True)
    nets = Nets(QUICK if given.quick else FULL, given.cache)
    results = given.results or (given.cache / "results" if given.quick else RESULTS)
    try:
        if given.only in {None, "train"}:
            train_all(nets, tell)
        if given.only in {None, "measure"}:
            measure(nets, given.experiments, given.again)
        if given.only in {None, "measure", "report"}:
            for file in write(nets, _judge(nets), results):
                tell(f"wrote {file}")
    except (MissingData, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def measure(nets: Nets, chosen: list[str], again: list[str]) -> None:
    """Measure through services of its own what can be measured by now."""
    with one_thread():
        if outdated(nets):
            with _registry(nets) as registry:
                identify_all(registry, tell)
        with _registry(nets) as registry:
            measure_all(registry, _judge(nets), chosen, again, tell)


@contextlib.contextmanager
def _registry(nets: Nets) -> Iterator[Registry]:
    tell("starting a service")
    with (
        local_service() as service,
        Client(service.url, service.token) as client,
        tempfile.TemporaryDirectory(prefix="patchbay-paper-") as folder,
    ):
        yield Registry(client, nets, Path(folder))


def _judge(nets: Nets) -> Judge:
    return Judge(nets, Ledger(nets.cache / f"judged-{nets.plan.name}.jsonl"))


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
        "--experiments",
        nargs="+",
        choices=EXPERIMENTS,
        default=list(EXPERIMENTS),
        help="measure these only; several processes may share the cache, each with its own",
    )
    parser.add_argument(
        "--again",
        nargs="+",
        choices=EXPERIMENTS,
        default=[],
        help="measure these experiments again; what gives the same bytes is not judged again",
    )
    parser.add_argument(
        "--results",
        type=Path,
        help="folder for tables and plots (default: benchmarks/results; the cache for --quick)",
    )
    only = parser.add_mutually_exclusive_group()
    for step, about in STEPS.items():
        only.add_argument(f"--{step}", action="store_const", dest="only", const=step, help=about)
    return parser.parse_args()


def tell(text: str) -> None:
    """Say what happens now."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
