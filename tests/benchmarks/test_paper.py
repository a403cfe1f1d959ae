import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from benchmarks.minmax import pack
from benchmarks.paper import images
from benchmarks.paper.corruptions import CORRUPTIONS
from benchmarks.paper.experiments import BALANCED, EXPERIMENTS, METHODS
from benchmarks.paper.identification import Identified, identified_file
from benchmarks.paper.images import Cut
from benchmarks.paper.judging import Judge, Ledger
from benchmarks.paper.measuring import Row, rows, rows_file, units
from benchmarks.paper.packing import packed_by_minmax
from benchmarks.paper.plots import draw
from benchmarks.paper.report import write
from benchmarks.paper.statistics import difference, recovery, spread
from benchmarks.paper.trainings import (
    CLEAN,
    FULL,
    ORIGIN,
    QUICK,
    Course,
    Nets,
    Plan,
    Training,
    one_thread,
    trainings,
)

TINY = replace(
    QUICK,
    name="tiny",
    cuts=dict.fromkeys(QUICK.cuts, Cut(64, 64, 64, choosing=8, judging=16, apart=False)),
    courses={name: Course(1, 0.01) for name in QUICK.courses},
)
COUNT = 16


@pytest.fixture
def nets(tmp_path: Path) -> Nets:
    return Nets(TINY, tmp_path)


@pytest.fixture
def judge(nets: Nets) -> Judge:
    return Judge(nets, Ledger(nets.cache / "judged.jsonl"))


# ── images and corruptions ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_corruption_keeps_shape_and_range_and_depends_on_its_chance_alone(
    corruption: Callable[[torch.Tensor, Generator], torch.Tensor],
) -> None:
    pixels = torch.rand(4, 1, 28, 28, generator=Generator().manual_seed(0))
    before = pixels.clone()

    once, again = (corruption(pixels, Generator().manual_seed(7)) for _ in range(2))

    assert once.shape == pixels.shape
    assert 0 <= float(once.min()) <= float(once.max()) <= 1
    assert torch.equal(once, again)
    assert torch.equal(pixels, before)
    assert not torch.equal(once, pixels)


def test_no_image_is_in_two_parts_of_a_data_set(tmp_path: Path) -> None:
    cut = Cut(100, 200, 100, choosing=200, judging=400, apart=True)

    parts = images.load("digits", cut, seeds=3, cache=tmp_path)

    pieces = [parts.origin, *parts.tuning, parts.update, parts.choosing, parts.judging]
    assert [len(piece) for piece in pieces] == [100, 200, 200, 200, 100, 200, 400]
    # Two scans may look alike by chance, so places are compared: those of one shuffled order.
    train, test = images.SOURCES["digits"](tmp_path)
    joined = torch.cat([p.pixels for p in (parts.origin, parts.update, *parts.tuning)])
    assert torch.equal(joined, train.pixels[: len(joined)])
    assert torch.equal(torch.cat([p.pixels for p in pieces[-2:]]), test.pixels[:600])


def test_a_data_set_that_is_too_small_is_named(tmp_path: Path) -> None:
    cut = Cut(5_000, 0, 0, choosing=1, judging=1, apart=False)

    with pytest.raises(ValueError, match="digits has"):
        images.load("digits", cut, seeds=1, cache=tmp_path)


def test_a_missing_data_set_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "FASHION", tmp_path / "nowhere")

    with pytest.raises(images.MissingData, match="apt-get install dataset-fashion-mnist"):
        images.load("fashion", FULL.cuts["a"], seeds=3, cache=tmp_path)


# ── the plan ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("plan", [FULL, QUICK], ids=lambda plan: plan.name)
def test_every_case_needs_only_nets_that_the_plan_trains(plan: Plan) -> None:
    planned = list(trainings(plan))

    needed = {need for unit in units(plan) for case in unit.cases(plan) for need in case.needs}

    assert needed == set(planned)
    assert len(planned) == len(set(planned))
    for place, training in enumerate(planned):
        assert training.start is None or training.start in planned[:place]


def test_seeds_share_the_origin_and_foreign_pairs_share_no_seed() -> None:
    foreign = [
        signature
        for unit in units(FULL)
        for case in unit.cases(FULL)
        for signature, _ in case.parts
        if signature.robust_seed is not None
    ]

    assert foreign
    assert all(one.robust.seed != one.clean.seed for one in foreign)
    assert all(one.robust.start == one.clean.start == one.origin for one in foreign)


def test_training_goes_on_where_it_stopped_and_again_where_its_course_changed(nets: Nets) -> None:
    origin, clean = Training("resnet", ORIGIN), Training("resnet", CLEAN, "a")
    parts = nets.parts()
    with one_thread():
        nets.train(origin, parts)
        nets.train(clean, parts)
        before = nets.file(clean).read_bytes()
        nets.train(clean, parts)

    longer = {**TINY.courses, "a": Course(2, 0.01)}
    changed = replace(nets, plan=replace(TINY, courses=longer))

    assert nets.trained(origin)
    assert nets.trained(clean)
    assert changed.trained(origin)
    assert not changed.trained(clean)
    assert not list(nets.file(origin).parent.glob("*.part"))
    assert nets.file(clean).read_bytes() == before


# ── the paper's quantizer ────────────────────────────────────────────────────────────────────


@settings(max_examples=40)
@given(
    st.integers(2, 8),
    st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=50).map(torch.tensor),
)
def test_minmax_moves_an_element_by_half_a_step_at_most(bits: int, signature: torch.Tensor) -> None:
    content, unpacked = pack(signature, bits)

    step = float(signature.max() - signature.min()) / (2**bits - 1)
    assert unpacked.shape == signature.shape
    assert float((unpacked - signature).abs().max()) <= step / 2 + 1e-5
    assert content


def test_what_an_exact_patch_leaves_alone_is_not_packed() -> None:
    base = {"kernel": torch.zeros(2, 3), "bias": torch.zeros(2), "other": torch.ones(4, 4)}
    patched = base | {"kernel": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}

    size, weights = packed_by_minmax(base, patched, 8)

    assert torch.equal(weights["other"], base["other"])
    assert torch.equal(weights["bias"], patched["bias"])
    assert torch.allclose(weights["kernel"], patched["kernel"], atol=0.01)
    assert size == 2 * 2 + len(pack(patched["kernel"], 8)[0])


# ── what is remembered ───────────────────────────────────────────────────────────────────────


@settings(max_examples=20)
@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_judgements_are_remembered_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, bits: list[bool]
) -> None:
    file = tmp_path_factory.mktemp("ledger") / "judged.jsonl"
    Ledger(file).judge("a net", np.array(bits))

    found = Ledger(file).judgement("a net")

    assert found is not None
    assert found.tolist() == bits


def test_a_line_that_a_crash_cut_off_is_dropped_and_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "judged.jsonl"
    ledger = Ledger(file)
    ledger.judge("one", np.array([True]))
    ledger.pulled("recipe", "file")
    whole = file.read_text()
    file.write_text(whole[:-3])

    resumed = Ledger(file)

    assert resumed.judgement("one") is not None
    assert resumed.given_by("recipe") is None
    resumed.pulled("recipe", "file")
    assert file.read_text() == whole


# ── statistics and report ────────────────────────────────────────────────────────────────────


def test_a_standard_error_is_that_of_a_mean_over_seeds() -> None:
    found = spread([0.9, 0.94, 0.95])

    assert found.mean == pytest.approx(0.93)
    assert found.error == pytest.approx(np.std([0.9, 0.94, 0.95], ddof=1) / np.sqrt(3))
    assert found.text() == "93.0 ± 1.5"
    assert spread([0.5]).text() == "50.0"


def test_a_difference_is_taken_image_by_image(judge: Judge) -> None:
    one, other = a_row("one"), a_row("other")
    judge.ledger.judge(_of(one), np.arange(COUNT) < 12)
    judge.ledger.judge(_of(other), np.arange(COUNT) < 8)

    found = difference(judge, [one], [other])

    gains = np.array([0] * 8 + [1] * 4 + [0] * 4)
    assert found.mean == pytest.approx(0.25)
    assert found.error == pytest.approx(gains.std(ddof=1) / np.sqrt(COUNT))


def test_the_report_is_made_from_what_is_recorded(nets: Nets, judge: Judge, tmp_path: Path) -> None:
    _record(nets, judge)

    files = write(nets, judge, tmp_path / "results")

    text = (tmp_path / "results" / "report.md").read_text()
    headline = (tmp_path / "results" / "headline.md").read_text()
    assert {file.suffix for file in files} == {".md", ".svg"}
    assert len([file for file in files if file.suffix == ".svg"]) == len(EXPERIMENTS)
    assert "measured: 7 of 14 units" in headline
    assert (
        "| recovery by default, matched pairs | vgg | energy 0.85 | standard | 10 | 100.0x |"
        in (headline)
    )
    assert "80.0 %" in headline
    assert "at least 88 %: no" in headline
    assert "1 of 1 right" in headline
    assert headline in text


def test_the_same_rows_draw_the_same_bytes(judge: Judge, tmp_path: Path) -> None:
    shown = [a_row("x", selection=f"first {count}", experiment="shallow") for count in (1, 2)]

    drawn = []
    for _ in range(2):
        file = draw("shallow", shown, judge, tmp_path)
        drawn.append(file.read_bytes() if file else b"")

    assert drawn[0] == drawn[1] != b""


def test_a_report_of_nothing_says_so(nets: Nets, judge: Judge, tmp_path: Path) -> None:
    write(nets, judge, tmp_path / "results")

    text = (tmp_path / "results" / "report.md").read_text()
    assert "Nothing is measured yet." in text
    assert "Trained: 0 of 20 nets" in text


def a_row(judged: str, seen: tuple[str, ...] = ("contrast",), **other: object) -> Row:
    """A patch of ten bytes on a base of a thousand that gives back 80 % of the gap."""
    fields = {
        "experiment": "recovery",
        "net": "vgg",
        "seed": 0,
        "data": "a",
        "patches": [corruption for corruption in seen if corruption != CLEAN],
        "pair": "matched",
        "selection": "energy 0.85",
        "quality": "standard",
        "method": "",
        "scales": ["1"],
        "bytes": 10,
        "base_bytes": 1000,
        "energy_kept": 0.86,
        "parameters_kept": 0.12,
        "judged": judged,
        "accuracy": dict.fromkeys(seen, 0.8),
        "unpatched": dict.fromkeys(seen, 0.4),
        "robust": dict.fromkeys(seen, 0.9),
    }
    return Row(**(fields | other))  # type: ignore[arg-type]


def test_recovery_is_the_share_of_the_gap() -> None:
    row = a_row("x", accuracy={"contrast": 0.65}, unpatched={"contrast": 0.4})

    assert recovery(row) == pytest.approx(0.5)
    assert row.ratio == 100


def _of(row: Row, seen: str = "contrast") -> str:
    return f"{row.judged} digits {seen} {COUNT}"


def _record(nets: Nets, judge: Judge) -> None:
    """A few rows of every unit of one net, and the judgements behind them."""
    for unit in (one for one in units(nets.plan) if one.net == "vgg"):
        file = rows_file(nets, unit)
        file.parent.mkdir(parents=True, exist_ok=True)
        named = asdict(unit)
        base = a_row(f"{unit.name}", ("contrast", CLEAN), **named, accuracy=_eight())
        several = ("contrast", "gaussian-blur", CLEAN)
        some = {
            "quality": [
                replace(base, selection=selection, quality=quality)
                for selection in ("first 6", "first 7")
                for quality in ("exact", "small")
            ],
            "composition": [
                replace(
                    a_row(f"{unit.name}-{method}", several, **named),
                    method=method,
                    scales=["1"] * 2,
                )
                for method in (*METHODS, BALANCED)
            ],
            "shallow": [replace(base, selection="first 3")],
        }.get(unit.experiment, [base])
        file.write_text(json.dumps([asdict(row) for row in some]))
    for row in rows(nets):
        for seen in row.accuracy:
            if judge.ledger.judgement(_of(row, seen)) is None:
                judge.ledger.judge(_of(row, seen), np.arange(COUNT) < 12)
    one = Identified("vgg", "b", 0, "blur", "blur", 0.2, trusted=True, cosines={"blur": 1, "": 0})
    identified_file(nets).write_text(json.dumps([asdict(one)]))


def _eight() -> dict[str, float]:
    return {"contrast": 0.8, CLEAN: 0.8}
