"""Writes what is measured into a folder: tables, plots, the headline."""

import datetime as dt
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.paper import headline
from benchmarks.paper.experiments import EXPERIMENTS
from benchmarks.paper.identification import identified
from benchmarks.paper.judging import JUDGED, Judge
from benchmarks.paper.measuring import Row, rows, units
from benchmarks.paper.plots import draw
from benchmarks.paper.tables import TABLES, identification, markdown
from benchmarks.paper.trainings import Nets, trainings

RESULTS: Final = Path(__file__).parents[1] / "results"

READING: Final = """\
`recovery` is the share of the gap between the clean and the robust net that a patch gives back, on
images corrupted as the robust net's were; `ratio` is the size of the base as it is stored over that
of the patches; `bytes` are means. ± is a standard error over seeds: each seed's nets see images of
their own in an order of their own, and all share the origin, so what another origin would change is
not in it. A *matched* pair was trained on the same images in the same order, a *foreign* one
was not. Differences between two ways are taken image by image, and their error is the larger of
those over seeds and over images.
"""

SAYS: Final = {
    "shallow": """\
Shallow kernels hold the robustness: exact patches of the first kernels in forward order, and of the
deep ones as a control.
""",
    "recovery": """\
Energy kept predicts recovery. Standard quality; the default keeps 0.85.
""",
    "scale": """\
Scale curves of the default patch.
""",
    "quality": """\
Bytes against loss, beside the paper's min-max quantizer. That one's bytes are bare codes, entropy
coded, and 16 bits for each value of biases and norms: no index, no digests.
""",
    "composition": """\
Several patches at once: mean accuracy over their corruptions by how the scales are found.
Selection, size, recovery and clean accuracy are those of the balanced recipe.
""",
    "transfer": """\
Patches of data set A on clean nets of data set B.
""",
    "update": """\
Patches on nets that were trained further after the patch was extracted.
""",
}


def write(nets: Nets, judge: Judge, folder: Path) -> list[Path]:
    """Write tables, plots and headline; answers the files."""
    folder.mkdir(parents=True, exist_ok=True)
    found = rows(nets)
    by_experiment = {name: [row for row in found if row.experiment == name] for name in EXPERIMENTS}
    answers = identified(nets)
    lines = headline.lines(by_experiment, answers, judge)
    top = f"{markdown(lines)}\n{_conditions(nets)}"
    files = [_written(folder / "headline.md", top)]
    parts = [f"# The paper's claims, measured through the service\n\n{top}\n{READING}"]
    for name, some in by_experiment.items():
        plot = draw(name, some, judge, folder)
        files += [plot] if plot else []
        parts.append(_part(name, some, judge, plot))
    parts.append(f"## Identification\n\n{markdown(list(identification(answers)))}")
    return [*files, _written(folder / "report.md", "\n".join(parts))]


def _part(name: str, some: Sequence[Row], judge: Judge, plot: Path | None) -> str:
    shown = f"![{name}]({plot.name})\n\n" if plot else ""
    table = markdown(list(TABLES[name](some, judge)))
    return f"## {name.capitalize()}\n\n{SAYS[name]}\n{shown}{table}"


def _conditions(nets: Nets) -> str:
    """What was run, on what, and how far it got."""
    plan = nets.plan
    wanted, all_units = list(trainings(plan)), list(units(plan))
    trained = sum(map(nets.trained, wanted))
    done = {(row.experiment, row.net, row.seed) for row in rows(nets)}
    sources = " and ".join(f"{data.upper()} {source}" for data, source in plan.sources.items())
    judged = min(JUDGED, *(cut.judging for cut in plan.cuts.values()))
    today = dt.datetime.now(dt.UTC).date()
    return (
        f"{today}, {os.cpu_count()} cores, no GPU. Data: {sources}; {judged} images judge each "
        f"corruption, none of which anything was chosen by. {plan.seeds} seeds. Trained: {trained} "
        f"of {len(wanted)} nets; measured: {len(done)} of {len(all_units)} units.\n"
    )


def _written(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file
