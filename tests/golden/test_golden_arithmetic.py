"""Golden vectors of the numeric contract: every device and every release must reproduce them."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service import errors, names
from service.layout import fit
from service.layout.codecs import Kind
from service.tensors import arithmetic, raw

CASES: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("arithmetic.json").read_text(encoding="utf-8")
)


def _tensor(text: str, dtype: str, device: str) -> Tensor:
    octets = torch.from_numpy(np.frombuffer(bytes.fromhex(text), np.uint8).copy())
    count = octets.numel() // raw.DTYPES[dtype].itemsize
    return raw.view(octets, dtype, (count,)).to(device)


def _moved(case: dict[str, Any], device: str) -> str | None:
    base = _tensor(case["base"], case["dtype"], device)
    parts = [(Decimal(scale), _tensor(text, "F32", device)) for scale, text in case["parts"]]
    try:
        moved = arithmetic.patched(base, Kind(case["kind"]), parts, tensor="w")
    except errors.ScaleOverflows:
        return None
    return bytes(raw.octets(moved)).hex()


def _title(case: dict[str, Any]) -> str:
    return f"{case['dtype']} {case['kind']} {' '.join(scale for scale, _ in case['parts'])}"


def test_the_table_is_that_of_the_contract_in_force() -> None:
    assert names.CONTRACT == 1
    assert {case["dtype"] for case in CASES} == fit.PATCHABLE
    assert {case["kind"] for case in CASES} == set(Kind)


@pytest.mark.parametrize("case", CASES, ids=_title)
def test_the_cpu_reproduces(case: dict[str, Any]) -> None:
    assert _moved(case, "cpu") == case["result"]


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES, ids=_title)
def test_cuda_reproduces(case: dict[str, Any]) -> None:
    assert _moved(case, "cuda") == case["result"]
