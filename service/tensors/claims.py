"""What a patch file that was made elsewhere says of itself, as far as it may be repeated."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from service import errors
from service.layout.patchfile import PatchFile
from service.tensors.profile import Totals
from service.tensors.selection import Quality, layers_json, parse_layers

_FORMS: Final = ("origin", "pair", "none")
_LARGEST: Final = 2**53
"""Whole numbers up to here are the same to every JSON reader."""


def summary_of(patch: PatchFile) -> dict[str, Any]:
    """What lists and pages show of a patch file that was made elsewhere.

    Of its own words only the numbers and choices that an extraction writes: a file may say
    anything there.
    """
    kernels = [tensor for tensor in patch.tensors if tensor.norm is not None]
    return {
        **_choices(patch.parameters),
        **{
            field.name: patch.summary[field.name]
            for field in dataclasses.fields(Totals)
            if _is_number(patch.summary.get(field.name))
        },
        "kernels_kept": len(kernels),
        "parameters_kept": sum(tensor.numel for tensor in kernels),
        "size_bytes": patch.size_bytes,
        "warnings": [],
    }


def _choices(parameters: Mapping[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    if parameters.get("projection") in _FORMS:
        known["projection"] = parameters["projection"]
    if parameters.get("quality") in tuple(Quality):
        known["quality"] = parameters["quality"]
    try:
        known["layers"] = layers_json(parse_layers(parameters["layers"]))
    except (KeyError, errors.BadRequest):
        return known
    return known


def _is_number(value: Any) -> bool:
    return type(value) in {int, float} and -_LARGEST <= value <= _LARGEST
