import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.web.charts import profile_chart
from service.web.profile import Kernel, Profile


def kernel(name: str, norm: float, share: float, *, kept: bool) -> Kernel:
    return Kernel(
        name=name,
        path="model.safetensors",
        shape=[1],
        numel=1,
        relative_norm=norm,
        energy_share=share,
        cosine_to_standard=0,
        kept=kept,
    )


kernels = st.lists(
    st.builds(
        kernel,
        st.text(max_size=60),
        st.floats(0, 1e6),
        st.floats(0, 1),
        kept=st.booleans(),
    ),
    min_size=1,
    max_size=120,
)


@settings(max_examples=60, deadline=None)
@given(kernels)
def test_every_bar_stands_within_its_panel_and_its_column(found: list[Kernel]) -> None:
    chart = profile_chart(Profile(order="recorded", kernels=found))

    assert [slot.kernel for slot in chart.slots] == found
    assert len(chart.marks) == sum(each.kept for each in found)
    for slot in chart.slots:
        assert len(slot.bars) == len(chart.panels) == 2
        for bar, panel in zip(slot.bars, chart.panels, strict=True):
            axis, top = panel.ticks[0].y, panel.ticks[-1].y
            assert top - 1 <= bar.y <= axis
            assert bar.y + bar.height == pytest.approx(axis, abs=0.02)
            assert slot.x - 0.01 <= bar.x
            assert bar.x + bar.width <= slot.x + slot.width + 0.01 <= 100.1


@settings(max_examples=60, deadline=None)
@given(kernels)
def test_bars_are_as_high_as_their_values_say(found: list[Kernel]) -> None:
    chart = profile_chart(Profile(order="recorded", kernels=found))

    heights = [slot.bars[0].height for slot in chart.slots]
    highest = max(each.relative_norm for each in found)
    for each, height in zip(found, heights, strict=True):
        share = each.relative_norm / highest if highest > 0 else 0
        assert height == pytest.approx(share * max(heights), abs=0.05)


def test_lines_stand_at_round_numbers() -> None:
    found = [kernel("a", 0.397, 0.62, kept=True), kernel("b", 0.1, 0.38, kept=False)]

    chart = profile_chart(Profile(order="recorded", kernels=found))

    assert [tick.label for tick in chart.panels[0].ticks] == ["0", "0.2", "0.4"]
    assert [tick.label for tick in chart.panels[1].ticks] == ["0%", "25%", "50%", "75%"]


def test_the_picture_is_described_in_words() -> None:
    found = [kernel("stem", 0.5, 0.25, kept=False), kernel("deep", 0.2, 0.75, kept=True)]

    chart = profile_chart(Profile(order="recorded", kernels=found))

    assert "2 layers in forward order" in chart.description
    assert "keeps 1 of them, which hold 75.0% of the energy" in chart.description
    assert "changes most is stem, by 0.500" in chart.description


def test_noise_is_marked_where_it_can_be_seen() -> None:
    loud, quiet = kernel("a", 0.4, 0.9, kept=True), kernel("b", 0.01, 0.1, kept=True)
    found = [
        loud.model_copy(update={"noise_floor": 1e-8}),
        quiet.model_copy(update={"noise_floor": 0.02}),
    ]

    chart = profile_chart(Profile(order="recorded", kernels=found))

    (mark,) = chart.floors
    axis, top = chart.panels[0].ticks[0].y, chart.panels[0].ticks[-1].y
    assert axis - mark.y == pytest.approx((axis - top) * 0.02 / 0.4, abs=0.02)
    assert [each.is_quiet for each in found] == [False, True]


def test_a_long_name_keeps_its_ends() -> None:
    name = "model.layers.11.self_attn.q_proj.lora.weight"

    chart = profile_chart(Profile(order="recorded", kernels=[kernel(name, 1, 1, kept=True)]))

    assert chart.first == chart.last == "model.layers.11…roj.lora.weight"
