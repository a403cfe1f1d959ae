"""What holds for a folder alone: full disks, lost disks, leftovers, links."""

import errno
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from service import errors
from service.blobs.folder import FolderStore
from service.blobs.store import MIB
from service.names import digest_of

CONTENT = b"some bytes" * 100
DIGEST = digest_of(CONTENT)


def put(store: FolderStore) -> None:
    with store.writer(DIGEST, len(CONTENT)) as writer:
        writer.write(CONTENT)
        writer.commit()


def leftovers(root: Path) -> list[Path]:
    return list((root / "tmp").iterdir())


def test_a_blob_lies_where_the_drawing_says(folder: FolderStore, tmp_path: Path) -> None:
    put(folder)

    name = DIGEST.removeprefix("sha256:")
    path = tmp_path / "blobs" / "sha256" / name[:2] / name
    assert path.read_bytes() == CONTENT
    assert folder.local_path(DIGEST) == path
    assert leftovers(tmp_path / "blobs") == []


def test_an_announced_size_that_would_touch_the_reserve_is_refused_at_once(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    store = FolderStore(tmp_path / "blobs", reserve_bytes=free // 2)

    with pytest.raises(errors.DiskFull) as caught:
        store.writer(DIGEST, free - free // 4)

    assert caught.value.needed_bytes == free - free // 4
    assert leftovers(tmp_path / "blobs") == []


def test_a_disk_that_fills_up_while_writing_is_told(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    reserve_bytes = disk.f_blocks * disk.f_frsize
    store = FolderStore(tmp_path / "blobs", reserve_bytes=0)

    with store.writer(DIGEST) as writer:
        writer.write(CONTENT[:10])
        store._disk.reserve_bytes = reserve_bytes
        with pytest.raises(errors.DiskFull):
            writer.write(CONTENT[10:])

    assert store.stat(DIGEST) is None
    assert leftovers(tmp_path / "blobs") == []


def test_the_reserve_is_a_twentieth_of_the_disk_and_at_most_a_gibibyte(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)

    store = FolderStore(tmp_path)

    assert store._disk.reserve_bytes == min(disk.f_blocks * disk.f_frsize // 20, 1024 * MIB)


def test_a_file_size_limit_counts_as_a_full_disk(tmp_path: Path) -> None:
    script = f"""
        import resource
        from pathlib import Path
        from service import errors
        from service.blobs.folder import FolderStore
        from service.names import digest_of

        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
        store = FolderStore(Path({str(tmp_path)!r}), reserve_bytes=0)
        content = bytes(2**20 + 1)
        try:
            with store.writer(digest_of(content)) as writer:
                writer.write(content)
                writer.commit()
        except errors.DiskFull:
            print("full", store.stat(digest_of(content)))
        small = b"still well"
        with store.writer(digest_of(small)) as writer:
            writer.write(small)
            writer.commit()
        print(store.stat(digest_of(small)))
    """

    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("full None\n10\n", "")
    assert leftovers(tmp_path) == []


def test_a_folder_that_is_gone_is_unavailable_and_well_again_after(
    folder: FolderStore, tmp_path: Path
) -> None:
    put(folder)
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")

    for use in (
        folder.check,
        lambda: folder.stat(DIGEST),
        lambda: folder.read(DIGEST, 0, 1),
        lambda: folder.writer(DIGEST),
        lambda: folder.delete(DIGEST),
        lambda: list(folder.digests()),
    ):
        with pytest.raises(errors.StoreUnavailable) as caught:
            use()
        assert str(tmp_path) not in str(caught.value)
    (tmp_path / "elsewhere").rename(tmp_path / "blobs")

    folder.check()
    assert folder.read(DIGEST, 0, 4) == CONTENT[:4]


def test_an_empty_mount_point_is_not_an_empty_store(folder: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    (tmp_path / "blobs").mkdir()

    with pytest.raises(errors.StoreUnavailable):
        folder.stat(DIGEST)


def test_leftovers_are_swept_once_they_are_a_day_old(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    old, fresh = tmp_path / "tmp" / "old.part", tmp_path / "tmp" / "fresh.part"
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)

    FolderStore(tmp_path)

    assert leftovers(tmp_path) == [fresh]


def test_a_symbolic_link_is_no_blob_and_is_never_written_through(
    folder: FolderStore, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    name = DIGEST.removeprefix("sha256:")
    link = tmp_path / "blobs" / "sha256" / name[:2] / name
    link.parent.mkdir()
    link.symlink_to(secret)

    assert folder.stat(DIGEST) is None
    assert list(folder.digests()) == []
    with pytest.raises(errors.BlobNotFound):
        folder.read(DIGEST, 0, 6)
    put(folder)

    assert secret.read_bytes() == b"secret"
    assert not link.is_symlink()
    assert folder.read(DIGEST, 0, len(CONTENT)) == CONTENT


def test_an_open_blob_stays_readable_though_it_is_deleted(folder: FolderStore) -> None:
    put(folder)

    with folder.open(DIGEST) as reader:
        folder.delete(DIGEST)

        assert reader.read(3, 9) == CONTENT[3:9]
        assert folder.stat(DIGEST) is None


def test_a_reader_that_was_closed_refuses(folder: FolderStore) -> None:
    put(folder)
    reader = folder.open(DIGEST)
    reader.close()
    reader.close()

    assert reader.fileno() is None
    with pytest.raises(ValueError, match="closed"):
        reader.read(0, 1)


def test_a_file_of_another_disk_is_copied(
    folder: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "made"
    path.write_bytes(b"made elsewhere")

    def refuses(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refuses)
    folder.take_file(digest_of(b"made elsewhere"), path)

    assert folder.read(digest_of(b"made elsewhere"), 0, 14) == b"made elsewhere"
    with pytest.raises(errors.DigestMismatch):
        folder.take_file(digest_of(b"other"), path)
