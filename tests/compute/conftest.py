"""What tests of the long work share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.pairs import Bench, Three, weights


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Other tests run beside these; whoever needs more threads asks for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def three() -> Three:
    """An origin, and the clean and the robust model that were trained from it."""
    origin = weights(1)
    return Three(weights(2, start=origin), weights(3, start=origin), origin)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)
