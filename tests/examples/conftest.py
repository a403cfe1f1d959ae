import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Examples are no part of the installed package; `python -m examples.demo` finds them from the
# top level of the repository, which pytest does not put on the path.
sys.path.append(str(Path(__file__).parents[2]))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other crawl where other tests hold the second core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
