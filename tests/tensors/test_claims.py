"""A patch file may say anything of itself; little of it is repeated."""

from service.layout.codecs import Codec, Kind
from service.layout.header import compose
from service.layout.patchfile import PatchFile, SignatureTensor
from service.names import ByteRange
from service.tensors.claims import summary_of


def _patch(parameters: dict[str, object], summary: dict[str, object]) -> PatchFile:
    nowhere = ByteRange(0, 0)
    kernel = SignatureTensor(
        "m", "w", (4, 2), Kind.ADDITIVE, Codec.F32, 0, nowhere, nowhere, 1.0, 2.0, "0" * 64
    )
    bias = SignatureTensor(
        "m", "b", (4,), Kind.ADDITIVE, Codec.F16, 0, nowhere, nowhere, None, None, "0" * 64
    )
    return PatchFile((kernel, bias), parameters, {}, summary, compose([]))


def test_what_an_extraction_writes_is_repeated() -> None:
    patch = _patch(
        {"projection": "pair", "quality": "high", "layers": {"first": 3}},
        {"gain": 1.01, "kernels": 10, "energy_kept": 0.9},
    )

    said = summary_of(patch)

    assert said["projection"] == "pair"
    assert said["quality"] == "high"
    assert said["layers"] == {"first": 3}
    assert (said["gain"], said["kernels"], said["energy_kept"]) == (1.01, 10, 0.9)


def test_what_can_be_counted_is_counted() -> None:
    said = summary_of(_patch({}, {"kernels_kept": 99, "parameters_kept": 99}))

    assert (said["kernels_kept"], said["parameters_kept"]) == (1, 8)
    assert said["size_bytes"] == compose([]).file_size


def test_anything_else_is_dropped() -> None:
    patch = _patch(
        {"projection": ["x"], "quality": "<script>", "layers": {"first": -3}, "more": "y" * 10**6},
        {"gain": "<b>", "cosine": True, "kernels": 10**400, "noise": 1, "energy_kept": None},
    )

    assert set(summary_of(patch)) == {"kernels_kept", "parameters_kept", "size_bytes", "warnings"}
