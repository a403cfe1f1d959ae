"""Which kernels come first: by name, as recorded, as somebody gives it."""

import pytest

from service import errors
from service.tensors.selection import First
from tests.pairs import Bench, Three


def test_the_first_layers_follow_a_recorded_order(three: Three, bench: Bench) -> None:
    by_name = bench.extract(three.trio, layers=First(1))
    recorded = bench.extract(three.trio, layers=First(1), recorded_order=tuple(three.clean)[::-1])

    assert by_name.source.patch.tensors[0].name == "features.0.weight"
    assert recorded.source.patch.tensors[0].name == "mix.weight"
    assert (by_name.profile["order"], recorded.profile["order"]) == ("by name", "recorded")


def test_an_order_that_is_given_goes_before_a_recorded_one_and_need_not_be_whole(
    three: Three, bench: Bench
) -> None:
    made = bench.extract(
        three.trio,
        layers=First(2),
        forward_order=("model.safetensors:mix.weight",),
        recorded_order=tuple(three.clean),
    )

    assert made.profile["order"] == "given"
    names = [kernel["name"] for kernel in made.profile["kernels"]]
    assert names == ["mix.weight", "features.0.weight", "features.3.weight"]
    assert {t.name for t in made.source.patch.tensors} >= {"mix.weight", "features.1.running_var"}


def test_an_order_that_names_no_tensor_of_the_model_is_refused(three: Three, bench: Bench) -> None:
    with pytest.raises(errors.BadRequest, match=r"'mixed\.weight'"):
        bench.extract(three.trio, forward_order=("mixed.weight", "mix.weight"))
