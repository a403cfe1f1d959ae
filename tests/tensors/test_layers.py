"""Roles and order, by the names that real models use."""

import pytest

from service.names import TensorAddress
from service.tensors.layers import DEFAULT_NAMES, Layer, NameTable, Role, forward_order, role_of


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "role"),
    [
        ("conv1.weight", "F32", (64, 3, 7, 7), Role.KERNEL),
        ("layer1.0.conv1.weight", "BF16", (64, 64, 3, 3), Role.KERNEL),
        ("blocks.0.mlp.fc1.weight", "F16", (3072, 768), Role.KERNEL),
        ("vit.embeddings.patch_embeddings.projection.weight", "F32", (768, 3, 16, 16), Role.KERNEL),
        ("model.layers.0.self_attn.q_proj.weight", "BF16", (64, 64), Role.KERNEL),
        ("fc.weight", "F32", (1000, 2048), Role.HEAD),
        ("module.fc.bias", "F32", (1000,), Role.HEAD),
        ("classifier.6.weight", "F32", (1000, 4096), Role.HEAD),
        ("lm_head.weight", "BF16", (32000, 64), Role.HEAD),
        ("model.embed_tokens.weight", "BF16", (32000, 64), Role.EMBEDDING),
        ("bert.embeddings.word_embeddings.weight", "F32", (30522, 64), Role.EMBEDDING),
        ("pos_embed", "F32", (1, 197, 768), Role.EMBEDDING),
        ("cls_token", "F32", (1, 1, 768), Role.EMBEDDING),
        ("bn1.running_var", "F32", (64,), Role.VECTOR),
        ("conv1.bias", "F32", (64,), Role.VECTOR),
        ("bn1.num_batches_tracked", "I64", (), Role.COUNTER),
        ("logit_scale", "F32", (), Role.OTHER),
        ("layers.0.weight", "F8_E4M3", (64, 64), Role.OTHER),
        ("mask", "BOOL", (64, 64), Role.OTHER),
    ],
)
def test_a_tensor_has_the_role_that_its_name_and_shape_say(
    name: str, dtype: str, shape: tuple[int, ...], role: Role
) -> None:
    assert role_of(name, dtype, shape) is role


def test_another_table_gives_other_roles() -> None:
    table = NameTable(embeddings=(), heads=("last.*",), stems=())

    assert role_of("fc.weight", "F32", (10, 64), table) is Role.KERNEL
    assert role_of("last.weight", "F32", (10, 64), table) is Role.HEAD


def _layers(*names: str) -> list[Layer]:
    shape = (8, 8)
    return [
        Layer(TensorAddress("m.safetensors", name), shape, "F32", role_of(name, "F32", shape))
        for name in names
    ]


def test_numbers_sort_as_numbers_the_stem_first_and_the_head_last() -> None:
    wanted = [
        "conv1.weight",
        "features.2.weight",
        "features.10.weight",
        "layer1.0.conv1.weight",
        "layer1.0.conv2.weight",
        "classifier.0.weight",
    ]
    shuffled = sorted(wanted, key=lambda name: name[::-1])

    ordered = forward_order(_layers(*shuffled))

    assert [layer.name for layer in ordered] == wanted


def test_a_recorded_order_is_kept_and_strangers_come_last() -> None:
    layers = _layers("a.weight", "b.weight", "c.weight")

    ordered = forward_order(layers, DEFAULT_NAMES, ["c.weight", "a.weight"])

    assert [layer.name for layer in ordered] == ["c.weight", "a.weight", "b.weight"]
