"""Pulled files against a reference that shares no code with the service.

The reference reads patch files by the drawing of `layout/patchfile` with the safetensors library
and numpy alone, and carries the contract out in plain torch.
"""

from collections.abc import Iterator, Mapping
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from service.layout import inplace
from service.layout.pieces import Change, WeightFile, file_digest
from service.layout.sidecar import AppliedRecipe
from service.names import Digest
from tests.e2e.bench import Bench, refused
from tests.layout.patchfile import plain

pytestmark = pytest.mark.xdist_group("service")

DTYPES = {
    "unet/model.safetensors": torch.float16,
    "vae/model.safetensors": torch.bfloat16,
    "text/model.safetensors": torch.float32,
    "text/wide.safetensors": torch.float64,
}
RECIPES = ("main+fog=1", "main+fog=-0.75+snow=1.25", "main+snow=0.0001", "main+fog=2+snow=-2")


def _part(seed: int, dtype: torch.dtype, like: Mapping[str, Tensor] | None = None) -> Any:
    """Weights whose names are the same in every part; with `like`, those moved a little."""
    random = torch.Generator().manual_seed(seed)
    shapes = {
        "conv.weight": (6, 5, 3, 3),
        "bn.weight": (6,),
        "bn.bias": (6,),
        "bn.running_mean": (6,),
        "bn.running_var": (6,),
        "wide.weight": (70, 65),
        "wide.bias": (70,),
    }
    made = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=random, dtype=torch.float64)
        moved = value if like is None else like[name].double() + 0.05 * value
        made[name] = (moved.abs() + 0.1 if name.endswith("var") else moved).to(dtype)
    return {**made, "bn.num_batches_tracked": torch.tensor(3)}


@pytest.fixture(scope="module")
def parts(pair: Bench) -> Bench:
    """A model of four files, of which two lie in one folder, with two patches on it."""
    bench = Bench(pair.client, pair.blobs)
    clean = {path: _part(1, dtype) for path, dtype in DTYPES.items()}
    bench.model("clean", {path: save(part) for path, part in clean.items()})
    for seed, patch, quality in ((2, "fog", "standard"), (3, "snow", "exact")):
        moved = {path: _part(seed, dtype, clean[path]) for path, dtype in DTYPES.items()}
        bench.model(patch, {path: save(part) for path, part in moved.items()})
        bench.patch(patch, "clean", patch, quality=quality)
    return bench


def _file(bench: Bench, address: str) -> bytes:
    answer = bench.client.get(address)
    assert answer.status_code == 200, answer.text
    return answer.content


def _pulled(bench: Bench, path: str, recipe: str) -> bytes:
    return _file(bench, f"{bench.of('weights', 'clean')}/{path}?recipe={recipe}")


# ── the reference ────────────────────────────────────────────────────────────────────────────


def _signature(content: bytes) -> Iterator[tuple[str, str, str, Tensor]]:
    """The file, name, kind and values of each tensor of a patch file."""
    for file, name, kind, values in plain.decode(content):
        yield file, name, kind, torch.from_numpy(values.copy())


def _reference(
    base: Mapping[str, Tensor], steps: list[tuple[float, dict[str, tuple[str, Tensor]]]]
) -> dict[str, Tensor]:
    """The contract: one multiplication and one addition after the other, then one rounding."""
    out = {}
    for name, own in base.items():
        wide = own if own.dtype == torch.float64 else own.to(torch.float32)
        log = torch.zeros(own.shape, dtype=torch.float64)
        for scale, signature in steps:
            kind, delta = signature.get(name, ("", torch.zeros(())))
            if kind == "additive":
                product = delta.to(wide.dtype) * torch.tensor(scale, dtype=wide.dtype)
                wide = wide + product
            if kind == "log-ratio":
                log = log + delta.double() * torch.tensor(scale, dtype=torch.float64)
        if log.any():
            powers = [float(Decimal(x).exp(Context(prec=40))) for x in log.tolist()]
            wide = (own.double() * torch.tensor(powers, dtype=torch.float64)).to(wide.dtype)
        out[name] = wide.to(own.dtype) if own.is_floating_point() else own
    return out


# ── the tests ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_pulled_file_is_the_plain_reference_tensor_by_tensor(parts: Bench, recipe: str) -> None:
    resolved = parts.client.post("/v1/recipes", json={"recipe": parts.ref(f"clean@{recipe}")})
    steps = []
    for patch in sorted(resolved.json()["patches"], key=lambda patch: str(patch["digest"])):
        content = _file(parts, f"/v1/patches/{patch['patch']}/versions/{patch['version']}/file")
        steps.append((patch["scale"], list(_signature(content))))

    for path in DTYPES:
        base, patched = (_pulled(parts, path, each) for each in ("main", recipe))
        here = [
            (scale, {name: (kind, delta) for where, name, kind, delta in rows if where == path})
            for scale, rows in steps
        ]
        expected, found = _reference(load(base), here), load(patched)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), (path, name)
        header = 8 + int.from_bytes(base[:8], "little")
        assert patched[:header] == base[:header]
        assert patched != base


def test_scales_that_cancel_give_the_base_and_the_order_does_not_matter(parts: Bench) -> None:
    path = "vae/model.safetensors"

    cancelled = _pulled(parts, path, "main+fog=1.5+snow=0+fog=-1.5")
    orders = [
        _pulled(parts, path, f"main+{'+'.join(order)}")
        for order in (("fog=0.5", "snow=0.3"), ("snow=0.3", "fog=0.5"), ("snow=0.3", "fog=0.50"))
    ]

    assert cancelled == _pulled(parts, path, "main")
    assert len(set(orders)) == 1


def test_overlays_applied_in_place_give_the_pulled_files_and_undo_the_base(
    parts: Bench, tmp_path: Path
) -> None:
    """A folder of parts, from the base to one recipe, to another, and back; undo needs no net."""
    base = {path: _pulled(parts, path, "main") for path in DTYPES}
    for path, content in base.items():
        (tmp_path / "model" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / path).write_bytes(content)

    for number, recipe in enumerate(RECIPES[:2]):
        inplace.apply(tmp_path / "model", _change(parts, tmp_path / str(number), recipe))
        for path in DTYPES:
            local = (tmp_path / "model" / path).read_bytes()
            assert local == _pulled(parts, path, recipe), path
    inplace.undo(tmp_path / "model")

    assert {path: (tmp_path / "model" / path).read_bytes() for path in DTYPES} == base
    assert not list((tmp_path).glob("*.patchbay"))


def _change(bench: Bench, folder: Path, recipe: str) -> Change:
    """What our client makes of a manifest and its overlays."""
    asked = bench.client.post("/v1/builds", json={"recipe": bench.ref(f"clean@{recipe}")})
    build = f"/v1/builds/{asked.json().get('id')}"
    if asked.status_code == 202:
        build = f"/v1/builds/{bench.ended(asked)['result']['id']}"
    manifest = bench.get(f"{build}/manifest")
    files = {}
    for file in manifest["files"]:
        overlay = folder / file["path"]
        overlay.parent.mkdir(parents=True, exist_ok=True)
        overlay.write_bytes(_file(bench, f"{build}/overlay/{file['path']}"))
        assert file_digest(overlay) == file["overlay_digest"]
        files[file["path"]] = WeightFile(
            Digest(file["base_digest"]), overlay, Digest(file["overlay_digest"])
        )
    named = manifest["recipe"]
    return Change(named["base"], AppliedRecipe(named["digest"], named["reference"]), files)


def test_a_model_of_parts_without_a_path_lists_them_all(parts: Bench) -> None:
    answer = parts.weights("main+fog=1")

    problem = refused(answer, 409, "several-files", *DTYPES)
    assert problem["paths"] == sorted(DTYPES)
