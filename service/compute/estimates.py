"""How large a patch file will be, by quality, before a tensor of it is packed."""

import hashlib
from collections.abc import Sequence
from math import ceil, sqrt
from typing import Final

from service.compute.measure import Plan
from service.layout.codecs import Kind, halves_count
from service.layout.patchfile import Notes, Packed, compose_header, compose_index
from service.tensors import selection
from service.tensors.layers import Layer
from service.tensors.selection import Measured, Quality

_HALF_BYTES: Final = 2


def estimated_bytes(plan: Plan, notes: Notes) -> dict[str, int]:
    """The size of a plan's patch file by quality."""
    kept = [kernel for kernel in plan.kept if kernel.energy > 0]
    return {str(quality): file_bytes(kept, plan.riders, notes, quality) for quality in Quality}


def file_bytes(
    kernels: Sequence[Measured], riders: Sequence[Layer], notes: Notes, quality: Quality
) -> int:
    """The size of a patch file, from its header and an index like the real one."""
    packed = [_kernel(kernel, quality) for kernel in kernels]
    packed += [_rider(rider, quality) for rider in riders]
    return compose_header(packed, len(compose_index(packed, notes))).file_size


def data_bytes(kernels: Sequence[Measured], riders: Sequence[Layer], quality: Quality) -> int:
    """What the codes and scales alone take."""
    packed = [_kernel(kernel, quality) for kernel in kernels]
    packed += [_rider(rider, quality) for rider in riders]
    halves = sum(halves_count(one.codec, one.shape) for one in packed)
    return sum(one.stored_bytes for one in packed) + _HALF_BYTES * halves


def _kernel(kernel: Measured, quality: Quality) -> Packed:
    layer = kernel.layer
    grain = selection.kernel_grain(quality, layer.numel)
    norms = sqrt(kernel.energy), sqrt(kernel.weight)
    deflated = 0 if quality is Quality.EXACT else ceil(grain.bits * layer.numel / 8)
    how, pin = grain.codec, _noise(layer.name)
    return Packed(layer.address, layer.shape, Kind.ADDITIVE, how, 0, *norms, pin, deflated)


def _rider(rider: Layer, quality: Quality) -> Packed:
    how = selection.rider_codec(quality)
    return Packed(rider.address, rider.shape, Kind.ADDITIVE, how, 0, None, None, _noise(rider.name))


def _noise(text: str) -> str:
    """What compresses as badly as a digest."""
    return hashlib.sha256(text.encode()).hexdigest()
