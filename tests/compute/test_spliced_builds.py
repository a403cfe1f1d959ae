"""A recipe's file, from any base, patches and scales, against a plain reference of the contract."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load
from torch import Tensor

from service.compute import build
from service.compute.sources import PatchSource, decode
from service.compute.sources import digest_of as digest_of_tensor
from service.layout import fit, patchfile
from service.layout.codecs import Codec, Kind
from service.layout.header import Header, TensorEntry, compose
from service.layout.patchfile import Notes, Packed
from service.layout.splice import BlobRange, plan_patched, plan_undo
from service.names import Digest, TensorAddress, canonical_recipe, digest_of
from service.tensors import codec, raw
from tests.pairs import CPU, reader
from tests.patchfiles import sealed

PATH = "model.safetensors"
FLOATS = ["F64", "F32", "F16", "BF16"]
SCALES = st.integers(-20_000, 20_000).map(lambda units: Decimal(units) / 10_000)


@dataclass(frozen=True)
class Case:
    """A base file, patch files, and a recipe as entered: (number of the patch, scale)."""

    header: Header
    content: bytes
    patches: tuple[bytes, ...]
    recipe: tuple[tuple[int, Decimal], ...]


def _bits(dtype: str, shape: tuple[int, ...], random: torch.Generator, *, odd: bool) -> bytes:
    values = torch.randn(shape, generator=random, dtype=torch.float64)
    if odd and values.numel() > 2:
        values.view(-1)[:3] = torch.tensor([float("nan"), float("-inf"), 1e-42])
    if dtype in FLOATS:
        return bytes(raw.octets(values.to(raw.DTYPES[dtype])))
    whole = torch.int64 if dtype == "I64" else torch.uint8
    return bytes(raw.octets((values.nan_to_num(0, 0, 0).abs() * 9).to(whole)))


@dataclass(frozen=True)
class Drawn:
    """What a case is made from; made in the test's body, since type checks there draw numbers."""

    seed: int
    odd: bool
    tensors: list[tuple[str, tuple[int, ...]]]
    patches: list[dict[int, int]]
    recipe: list[tuple[int, Decimal]]


_SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
CASES = st.builds(
    Drawn,
    seed=st.integers(0, 2**32),
    odd=st.booleans(),
    tensors=st.lists(
        st.tuples(st.sampled_from([*FLOATS, "I64", "U8"]), _SHAPES), min_size=1, max_size=6
    ),
    # Each patch: which of the floating tensors it moves, and how each is packed.
    patches=st.lists(st.dictionaries(st.integers(0, 5), st.integers(0, 4), min_size=1), max_size=3),
    recipe=st.lists(st.tuples(st.integers(0, 2), SCALES), max_size=4),
)


def _made(drawn: Drawn) -> Case:
    random = torch.Generator().manual_seed(drawn.seed)
    header = compose((f"t{number}", *entry) for number, entry in enumerate(drawn.tensors))
    content = b"".join(_bits(*entry, random, odd=drawn.odd) for entry in drawn.tensors)
    floats = [tensor for tensor in header.tensors if tensor.dtype in FLOATS]
    chosen = [
        [(floats[number], how) for number, how in patch.items() if number < len(floats)]
        for patch in drawn.patches
    ]
    patches = tuple(_patch(parts, random) for parts in chosen if parts)
    recipe = tuple(part for part in drawn.recipe if part[0] < len(patches))
    return Case(header, header.raw + content, patches, recipe)


def _patch(parts: list[tuple[TensorEntry, int]], random: torch.Generator) -> bytes:
    halves, codes, tensors = b"", b"", []
    for entry, number in parts:
        # One tensor moves in one way, whichever patch moves it.
        kind = Kind.LOG_RATIO if len(entry.shape) == 1 else Kind.ADDITIVE
        rows = entry.shape and entry.numel and kind is Kind.ADDITIVE
        how = list(Codec)[number if rows else number % 2]
        coded = codec.encode(torch.randn(entry.shape, generator=random).clamp(-2, 2) / 4, how)
        digest = digest_of_tensor(codec.decode(coded, how, entry.shape))
        address = TensorAddress(PATH, entry.name)
        own = (kind, how, coded.exponent, None, None, digest, coded.deflated)
        tensors.append(Packed(address, entry.shape, *own))
        halves += raw.octets(coded.halves)
        codes += raw.octets(coded.codes)
    index = patchfile.compose_index(tensors, Notes())
    header = patchfile.compose_header(tensors, len(index))
    return sealed(header.raw + halves + codes + index, tensors)


def _canonical(case: Case) -> list[tuple[PatchSource, Decimal]]:
    sources = {digest_of(patch): _source(patch) for patch in case.patches}
    entered = [(digest_of(case.patches[number]), scale) for number, scale in case.recipe]
    recipe = canonical_recipe(digest_of(case.content), entered)
    return [(sources[digest], scale) for digest, scale in recipe.patches]


def _source(content: bytes) -> PatchSource:
    read = reader(content)
    return PatchSource(patchfile.read(read, len(content)), read)


def _reference(
    base: dict[str, Tensor], recipe: list[tuple[PatchSource, Decimal]]
) -> dict[str, Tensor]:
    out = {}
    for name, own in base.items():
        found = [(s, t, c) for s, c in recipe for t in s.patch.tensors if t.name == name]
        wide = own.double() if own.dtype == torch.float64 else own.float()
        x = torch.zeros(own.shape, dtype=torch.float64)
        for source, tensor, scale in found:
            delta = decode(source, tensor, CPU)
            x = x + torch.tensor(float(scale), dtype=torch.float64) * delta.double()
            if tensor.kind is Kind.ADDITIVE:
                wide = wide + torch.tensor(float(scale), dtype=wide.dtype) * delta.to(wide.dtype)
        if found and found[0][1].kind is Kind.LOG_RATIO:
            growth = [float(Decimal(value).exp()) for value in x.tolist()]
            wide = (own.double() * torch.tensor(growth, dtype=torch.float64)).to(wide.dtype)
        out[name] = torch.where(own.isfinite(), wide.to(own.dtype), own) if found else own
    return out


def _spliced(case: Case) -> tuple[bytes, bytes, bytes]:
    """The patched file, its overlay, and the undo."""
    recipe = _canonical(case)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "overlay")
        made = build.build_overlay(
            {PATH: case.header},
            PATH,
            reader(case.content),
            recipe,
            out,
            device=CPU,
            progress=lambda _: None,
        )
        overlay = out.read_bytes()
    base = digest_of(case.content)
    blobs = {base: case.content, made.digest: overlay}

    def whole(segments: Sequence[object]) -> bytes:
        return b"".join(
            blobs[Digest(part.digest)][part.start : part.end]
            if isinstance(part, BlobRange)
            else part.content  # type: ignore[attr-defined]  # the other kind of segment
            for part in segments
        )

    patched = plan_patched(base, case.header, made.digest, made.header)
    undo = plan_undo(base, case.header, made.header)
    return whole(patched.segments), overlay, whole(undo.segments)


@given(CASES)
@settings(deadline=None, max_examples=120)
def test_a_spliced_file_is_the_reference_and_elsewhere_the_base(drawn: Drawn) -> None:
    case = _made(drawn)

    patched, _, _ = _spliced(case)

    expected = _reference(load(case.content), _canonical(case))
    touched = fit.touched({PATH: case.header}, [s.patch.tensors for s, _ in _canonical(case)])
    found = load(patched)
    assert patched[: case.header.data_start] == case.header.raw
    for entry in case.header.tensors:
        own, new = case.content[entry.start : entry.end], patched[entry.start : entry.end]
        if entry.name in touched.get(PATH, []):
            assert new == bytes(raw.octets(expected[entry.name]))
            assert torch.equal(found[entry.name].nan_to_num(), expected[entry.name].nan_to_num())
        else:
            assert new == own


@given(CASES)
@settings(deadline=None, max_examples=50)
def test_the_order_and_the_splitting_of_a_recipe_do_not_matter(drawn: Drawn) -> None:
    case = _made(drawn)
    halves = [(number, scale / 2) for number, scale in case.recipe if scale * 5000 % 1 == 0]
    others = [part for part in case.recipe if part[1] * 5000 % 1]
    mixed = Case(case.header, case.content, case.patches, (*halves, *others[::-1], *halves[::-1]))

    assert _spliced(mixed) == _spliced(case)


@given(CASES, SCALES)
@settings(deadline=None, max_examples=50)
def test_a_patch_that_is_taken_off_again_leaves_the_base(drawn: Drawn, scale: Decimal) -> None:
    case = _made(drawn)
    both = tuple((n, sign * scale) for n in range(len(case.patches)) for sign in (1, -1))

    patched, overlay, _ = _spliced(Case(case.header, case.content, case.patches, both))

    assert patched == case.content
    assert load(overlay) == {}


@given(CASES)
@settings(deadline=None, max_examples=50)
def test_an_undo_gives_the_bases_own_bytes(drawn: Drawn) -> None:
    case = _made(drawn)

    _, overlay, undo = _spliced(case)

    assert len(undo) == len(overlay)
    for name, tensor in load(undo).items():
        entry = case.header.entry(name)
        assert bytes(raw.octets(tensor)) == case.content[entry.start : entry.end]
