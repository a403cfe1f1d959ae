"""What was wished for, and what was measured: the table that the README shows."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Final

import numpy as np

from benchmarks.paper.experiments import BALANCED, SHALLOW
from benchmarks.paper.identification import Identified
from benchmarks.paper.judging import Judge
from benchmarks.paper.measuring import Row, selection_label
from benchmarks.paper.nets import NETS
from benchmarks.paper.statistics import difference, gain, grouped, over_seeds, recovery
from benchmarks.paper.tables import Line, loss, packed, what
from benchmarks.paper.trainings import CLEAN
from service.tensors.selection import DEFAULT

WANTED_RECOVERY: Final = 0.88
WANTED_RATIO: Final = 115
WANTED_LOSS: Final = 0.005
ERRORS: Final = 2
"""So many standard errors are taken for noise."""

Rows = Mapping[str, Sequence[Row]]


def lines(rows: Rows, answers: Sequence[Identified], judge: Judge) -> list[Line]:
    """A line a claim and net, in so far as it is measured."""
    claims = chain(
        chain.from_iterable(_net(net, rows, judge) for net in NETS), _identification(answers)
    )
    return list(claims)


def _net(net: str, rows: Rows, judge: Judge) -> Iterator[Line]:
    of_net = {name: [row for row in some if row.net == net] for name, some in rows.items()}
    yield from _recovery(of_net["recovery"])
    yield from _compactness(net, of_net["quality"], judge)
    yield from _elsewhere(of_net)
    yield from _composition(of_net["composition"], judge)


def _line(claim: str, rows: Sequence[Row], measured: str, verdict: str) -> Line:
    return {"claim": claim} | what(rows) | {"measured": measured, "wanted": verdict}


def _verdict(wanted: str, *, reached: bool) -> str:
    return f"{wanted}: {'yes' if reached else 'no'}"


def _recovery(rows: Sequence[Row]) -> Iterator[Line]:
    default = [row for row in rows if row.selection == selection_label(DEFAULT)]
    for pair, some in grouped(default, lambda row: row.pair).items():
        found = over_seeds(some, recovery)
        wanted = "at least 88 %" if pair == "matched" else ""
        verdict = _verdict(wanted, reached=found.mean >= WANTED_RECOVERY) if wanted else ""
        yield _line(f"recovery by default, {pair} pairs", some, f"{found.text()} %", verdict)


def _compactness(net: str, rows: Sequence[Row], judge: Judge) -> Iterator[Line]:
    """The smallest quality at the shallow selection that loses no more than is allowed."""
    label = selection_label(SHALLOW[net])
    groups = {key: some for key, some in packed(rows).items() if key[1] == label and not key[3]}
    if not groups:
        return
    exact = groups[net, label, "exact", ""]
    losses = [(some, *loss(judge, exact, some)) for some in groups.values()]
    by_mean = [one for one in losses if one[1].mean <= WANTED_LOSS]
    by_worst = [one for one in losses if one[2] <= WANTED_LOSS]
    for claim, good in (("on average", by_mean), ("on each corruption", by_worst)):
        best, lost, worst = max(good, key=lambda one: one[0][0].ratio)
        ratio = float(np.mean([row.ratio for row in best]))
        measured = f"{ratio:.0f}x, lost {lost.text(2)} points, at worst {100 * worst:.2f}"
        wanted = _verdict(f"{WANTED_RATIO}x", reached=ratio >= WANTED_RATIO)
        yield _line(
            f"smallest, at most 0.5 points lost {claim}",
            best,
            measured,
            wanted if net == "vgg" else "",
        )


def _elsewhere(rows: Rows) -> Iterator[Line]:
    default = [row for row in rows["transfer"] if row.selection == selection_label(DEFAULT)]
    carried = [row for row in default if not row.method and float(row.scales[0]) == 1]
    for claim, some in (("on the other data set", carried), ("on the updated net", rows["update"])):
        if some:
            clean = np.mean([row.accuracy[CLEAN] - row.unpatched[CLEAN] for row in some])
            measured = f"gain {over_seeds(some, gain).text()} points, clean {100 * clean:+.1f}"
            reached = _verdict("a gain", reached=over_seeds(some, gain).mean > 0)
            yield _line(claim, some, measured, reached)


def _composition(rows: Sequence[Row], judge: Judge) -> Iterator[Line]:
    """Balanced against the plain sum: on average, and where it is worst in standard errors."""
    combinations = grouped(rows, lambda row: tuple(row.patches))
    found = []
    for some in combinations.values():
        by_method = grouped(some, lambda row: row.method)
        if BALANCED in by_method:
            found.append(difference(judge, by_method[BALANCED], by_method["sum"]))
    if not found:
        return
    balanced = [row for row in rows if row.method == BALANCED]
    worst = min(one.in_errors for one in found)
    mean = 100 * np.mean([one.mean for one in found])
    measured = f"{mean:+.1f} points over the sum; at worst {worst:+.1f} standard errors"
    verdict = _verdict("nowhere 2 errors worse", reached=worst >= -ERRORS)
    yield _line(f"balanced, {len(found)} combinations", balanced, measured, verdict)


def _identification(answers: Sequence[Identified]) -> Iterator[Line]:
    for (net, data), some in grouped(answers, lambda one: (one.net, one.data)).items():
        blank = dict.fromkeys(("bytes", "ratio", "recovery, %"), "")
        right = sum(one.right for one in some)
        wrong = sum(one.trusted and not one.right for one in some)
        yield {
            "claim": f"identified, {'other runs' if data == 'a' else 'the other data set'}",
            "net": net,
            "selection": selection_label(DEFAULT),
            "quality": "standard",
            **blank,
            "measured": f"{right} of {len(some)} right, {wrong} trusted though wrong",
            "wanted": "",
        }
