"""Checkpoints that hold what they should: the tensors arrive bit for bit, as the library writes."""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from service import errors
from service.compute.ingest.reading import DTYPES
from tests.compute.ingest.conftest import Convert, legacy, saved

PLAIN = {"b.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.0, -0.0])}


def written(tensors: dict[str, Tensor]) -> bytes:
    """The oracle: what the safetensors library makes of these tensors."""
    return save({name: t.detach().contiguous() for name, t in tensors.items()}, {"format": "pt"})


def bits(dtype: torch.dtype) -> Tensor:
    """Every byte value there is, as a tensor of a dtype."""
    octets = torch.arange(256, dtype=torch.uint8)
    return (octets % 2).bool() if dtype == torch.bool else octets.view(dtype)


ODD = {
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.zeros(0, 3),
    "no columns": torch.zeros(3, 0, dtype=torch.int32),
    "transposed": torch.arange(12.0).reshape(3, 4).t(),
    "every second": torch.arange(10)[1::2],
    "a slice": torch.arange(24.0).reshape(2, 3, 4)[:, 1:, ::3],
    "expanded": torch.ones(1, 1).expand(5, 4),
    "permuted": torch.arange(24, dtype=torch.bfloat16).reshape(2, 3, 4).permute(2, 0, 1),
    "not finite": torch.tensor([float("nan"), float("inf"), -0.0, 1e-42]),
    "parameter": nn.Parameter(torch.ones(2, 2)),
}


@pytest.mark.parametrize("make", [saved, legacy])
def test_strided_views_are_written_as_the_library_writes_them(
    convert: Convert, make: Callable[[object], bytes]
) -> None:
    made = convert(make(ODD))

    assert made.content == written(ODD)
    assert made.order == list(ODD)


def test_every_dtype_keeps_its_bits(convert: Convert) -> None:
    tensors = {str(dtype): bits(dtype) for dtype in list(DTYPES)[::-1]}

    made = convert(saved(tensors))

    assert made.content == written(tensors)


def test_a_dtype_that_safetensors_lacks_is_refused_by_name_of_tensor(convert: Convert) -> None:
    with pytest.raises(errors.BadCheckpoint, match=r"'w' is of torch.complex128"):
        convert(saved({"w": torch.ones(2, dtype=torch.complex128)}))


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (torch.eye(3).to_sparse(), "sparse_coo"),
        (torch.ones(2, device="meta"), "without data"),
        (torch.ones(2, dtype=torch.complex64).conj(), "conjugated"),
    ],
)
def test_a_tensor_that_is_more_than_its_elements_is_refused_by_name(
    convert: Convert, tensor: Tensor, told: str
) -> None:
    with pytest.raises(errors.BadCheckpoint, match=told) as caught:
        convert(saved({"odd.weight": tensor}))

    assert "odd.weight" in str(caught.value)


# ── where the state dict lies ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("wrapped", "left_out"),
    [
        (PLAIN, []),
        (OrderedDict(PLAIN), []),
        ({"state_dict": PLAIN, "epoch": 3}, ["epoch"]),
        ({"model": PLAIN, "optimizer": {"state": {}, "param_groups": []}}, ["optimizer"]),
        ({"module": PLAIN, "best": torch.tensor(0.9)}, ["best"]),
        ({"model_state_dict": PLAIN, "model_ema": PLAIN}, ["model_ema"]),
        ({"state_dict": {"model": PLAIN}, "lr": 0.1}, ["lr"]),
        ({"generator": PLAIN, "args": {"lr": 1}, "ema": PLAIN}, ["args", "ema"]),
        ({**PLAIN, "_extra": None, "steps": 7}, ["_extra", "steps"]),
        ({"state_dict": {**PLAIN, "extra": {}}, "model": PLAIN}, ["model", "state_dict.extra"]),
        ({f"module.{name}": t for name, t in PLAIN.items()}, []),
        ({f"module.module.{name}": t for name, t in PLAIN.items()}, []),
        ({f"_orig_mod.module.{name}": t for name, t in PLAIN.items()}, []),
        ({name.replace(".", "._orig_mod."): t for name, t in PLAIN.items()}, []),
        (
            {"n_averaged": torch.tensor(3), **{f"module.{n}": t for n, t in PLAIN.items()}},
            ["n_averaged"],
        ),
    ],
)
def test_the_state_dict_is_found_and_its_order_kept(
    convert: Convert, wrapped: dict[str, object], left_out: list[str]
) -> None:
    made = convert(saved(wrapped))

    assert made.content == written(PLAIN)
    assert made.order == ["b.weight", "a.bias"]
    assert made.left_out == left_out


def test_a_module_of_the_model_called_module_keeps_its_name(convert: Convert) -> None:
    made = convert(saved({"module.weight": torch.ones(1), "head": torch.ones(2)}))

    assert made.order == ["module.weight", "head"]


def test_names_that_wrappers_alone_told_apart_are_refused(convert: Convert) -> None:
    both = {"a.weight": torch.ones(1), "_orig_mod.a.weight": torch.zeros(1)}

    with pytest.raises(errors.BadCheckpoint, match=r"_orig_mod.a.weight.* are both 'a.weight'"):
        convert(saved(both))


def test_one_tensor_with_and_without_its_wrapper_is_one(convert: Convert) -> None:
    one = torch.ones(2)

    made = convert(saved({"_orig_mod.a": one, "a": one}))

    assert made.order == ["a"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"generator": PLAIN, "critic": PLAIN}, "several state dicts: generator, critic"),
        ({"epoch": 3}, "no tensors"),
        ({}, "no tensors"),
        ([torch.ones(1)], "a list, no state dict"),
        (torch.ones(1), "a Tensor, no state dict"),
        ({3: torch.ones(1)}, "calls a tensor 3"),
        ({"__metadata__": torch.ones(1)}, "__metadata__"),
        ({"\ud800": torch.ones(1)}, "not Unicode"),
    ],
)
def test_what_holds_no_state_dict_is_refused(convert: Convert, value: object, told: str) -> None:
    with pytest.raises(errors.BadCheckpoint, match=told):
        convert(saved(value))


def test_a_dict_that_holds_itself_is_refused(convert: Convert) -> None:
    round_: dict[str, object] = {"x": {"state": 1}}
    round_["model"] = round_

    with pytest.raises(errors.BadCheckpoint, match="no tensors"):
        convert(saved(round_))


# ── tied tensors ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("make", [saved, legacy])
def test_a_shared_tensor_is_kept_once_under_its_first_name(
    convert: Convert, make: Callable[[object], bytes]
) -> None:
    shared = torch.arange(4.0)
    state = {"decoder": shared, "body": torch.ones(2), "encoder": shared, "lm_head": shared}

    made = convert(make(state))

    assert sorted(load(made.content)) == ["body", "decoder"]
    assert made.tied == {"encoder": "decoder", "lm_head": "decoder"}
    assert made.order == ["decoder", "body"]


def test_views_of_one_storage_that_differ_are_all_kept(convert: Convert) -> None:
    whole = torch.arange(6.0)
    state = {"whole": whole, "half": whole[:3], "grid": whole.reshape(2, 3), "t": whole[::2]}

    made = convert(saved(state))

    assert made.content == written({name: view.clone() for name, view in state.items()})
    assert made.tied == {}


def test_empty_tensors_are_not_taken_for_one(convert: Convert) -> None:
    made = convert(saved({"a": torch.zeros(0), "b": torch.zeros(0)}))

    assert made.tied == {}
    assert np.array_equal(load(made.content)["b"].numpy(), np.zeros(0))
