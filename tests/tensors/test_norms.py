"""Biases and norms find their kernels in the networks that people have."""

import torch
from torch import nn

from service.names import TensorAddress
from service.tensors.layers import Layer, forward_order, role_of
from service.tensors.norms import Attached, attach
from service.tensors.raw import NAMES


def _attached(network: nn.Module, *, recorded: bool = False) -> Attached:
    state = network.state_dict()
    layers = []
    for name in sorted(state):
        shape, dtype = tuple(state[name].shape), NAMES.get(state[name].dtype, "I64")
        address = TensorAddress("m.safetensors", name)
        layers.append(Layer(address, shape, dtype, role_of(name, dtype, shape)))
    order = list(state) if recorded else None
    return attach(forward_order(layers, recorded=order), frozenset(order or ()))


def _riders(attached: Attached, kernel: str) -> set[str]:
    return {rider.name for rider in attached.riders[TensorAddress("m.safetensors", kernel)]}


def _whole(module: str) -> set[str]:
    return {f"{module}.{part}" for part in ("weight", "bias", "running_mean", "running_var")}


class _Block(nn.Module):
    """A residual block as torchvision names it; all widths are equal, so only names can tell."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.downsample = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16) for _ in range(2)])
        self.norm = nn.LayerNorm(8)


class _Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.odd = nn.BatchNorm2d(8)
        self.other = nn.Conv2d(8, 8, 3)
        self.stray = nn.BatchNorm2d(5)


def test_a_residual_block_pairs_conv_and_bn_by_number() -> None:
    attached = _attached(nn.Sequential(_Block(), _Block()))

    assert _riders(attached, "1.conv1.weight") == _whole("1.bn1")
    assert _riders(attached, "1.conv2.weight") == _whole("1.bn2")
    assert _riders(attached, "1.downsample.0.weight") == _whole("1.downsample.1")
    assert attached.unattached == ()


def test_a_sequence_pairs_a_norm_with_the_conv_before_it_and_its_bias() -> None:
    parts = [
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8),
    ]
    network = nn.ModuleDict({"features": nn.Sequential(*parts)})

    attached = _attached(network)

    assert _riders(attached, "features.0.weight") == {"features.0.bias", *_whole("features.2")}
    assert _riders(attached, "features.3.weight") == {"features.3.bias", *_whole("features.4")}


def test_a_recorded_order_decides_where_names_cannot() -> None:
    by_name, recorded = _attached(_Stem()), _attached(_Stem(), recorded=True)

    assert [norm.module.name for norm in by_name.unattached] == ["odd", "stray"]
    assert _riders(recorded, "stem.weight") == {"stem.bias", *_whole("odd")}
    assert [norm.module.name for norm in recorded.unattached] == ["stray"]
    assert recorded.unattached[0].has_statistics


def test_a_transformers_norms_ride_with_the_kernels_of_their_block() -> None:
    attached = _attached(_Encoder())

    assert {"layers.1.norm2.weight", "layers.1.norm2.bias", "layers.1.linear2.bias"} <= _riders(
        attached, "layers.1.linear2.weight"
    )
    assert "layers.1.norm1.weight" in _riders(attached, "layers.1.self_attn.out_proj.weight")
    assert _riders(attached, "layers.0.self_attn.in_proj_weight") == {
        "layers.0.self_attn.in_proj_bias"
    }
    assert [norm.module.name for norm in attached.unattached] == ["norm"]


def test_a_recurrent_cells_biases_ride_with_their_weights() -> None:
    attached = _attached(nn.LSTM(4, 4))

    assert _riders(attached, "weight_hh_l0") == {"bias_hh_l0"}


def test_a_norm_of_another_part_of_the_model_is_not_taken() -> None:
    kernel = Layer(
        TensorAddress("unet/m.safetensors", "conv.weight"),
        (8, 8),
        "F32",
        role_of("conv.weight", "F32", (8, 8)),
    )
    norm = Layer(
        TensorAddress("vae/m.safetensors", "bn.weight"),
        (8,),
        "F32",
        role_of("bn.weight", "F32", (8,)),
    )

    attached = attach([kernel, norm], {kernel.name, norm.name})

    assert attached.riders[kernel.address] == ()
    assert torch.Size(attached.unattached[0].parts[0].shape) == (8,)


def test_a_bias_and_a_norm_are_found_though_shards_cut_between_them() -> None:
    shapes = {"conv.weight": (8, 4), "conv.bias": (8,), "bn.weight": (8,), "bn.bias": (8,)}
    layers = [
        Layer(
            TensorAddress(f"{number}.safetensors", name), shape, "F32", role_of(name, "F32", shape)
        )
        for number, (name, shape) in enumerate(shapes.items())
    ]

    attached = attach(layers)

    assert {rider.name for rider in attached.riders[layers[0].address]} == {*shapes} - {
        "conv.weight"
    }
    assert attached.unattached == ()
