"""Reads of byte ranges, by several threads, with and without a file behind them."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service import errors
from service.layout.disk import RangeReader, reader

CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def test_a_buffer_is_filled_with_the_bytes_that_a_read_answers(path: Path) -> None:
    with path.open("rb") as file:
        read, buffer = reader(file), bytearray(1000)

        read.fill(memoryview(buffer), 12_345)

        assert bytes(buffer) == read(12_345, 13_345) == CONTENT[12_345:13_345]


def test_threads_share_a_reader(path: Path) -> None:
    with path.open("rb") as file, ThreadPoolExecutor(4) as threads:
        read = reader(file)
        spans = [(start, start + 999) for start in range(0, len(CONTENT) - 999, 499)]

        found = list(threads.map(lambda span: read(*span), spans))

        assert found == [CONTENT[start:end] for start, end in spans]


def test_a_file_that_ends_before_is_said_to(path: Path) -> None:
    with path.open("rb") as file:
        with pytest.raises(errors.BodyCutOff):
            reader(file).fill(memoryview(bytearray(20)), len(CONTENT) - 10)
        with pytest.raises(errors.BodyCutOff):
            reader(file)(len(CONTENT) - 10, len(CONTENT) + 10)


def test_without_a_file_a_buffer_is_filled_from_reads() -> None:
    buffer = bytearray(7)

    RangeReader(lambda start, end: CONTENT[start:end], lambda: None).fill(memoryview(buffer), 3)

    assert bytes(buffer) == CONTENT[3:10]


def test_a_disk_that_fails_is_left_to_the_read_to_name(path: Path) -> None:
    def read(_start: int, _end: int) -> bytes:
        raise errors.StoreUnavailable("the disk failed")

    descriptor = os.open(path, os.O_WRONLY)  # which no read can use
    try:
        with pytest.raises(errors.StoreUnavailable):
            RangeReader(read, lambda: descriptor).fill(memoryview(bytearray(5)), 0)
    finally:
        os.close(descriptor)
