from pathlib import Path

from service.worker import scratch


def test_what_dead_workers_left_is_removed_and_what_living_ones_use_is_kept(
    tmp_path: Path,
) -> None:
    dead = tmp_path / f"{scratch.PREFIX}dead"
    (dead / "job-1").mkdir(parents=True)
    (dead / "lock").touch()

    with scratch.of_worker(tmp_path) as living, scratch.of_worker(tmp_path) as other:
        folders = set(tmp_path.iterdir())

    assert folders == {living, other}
    assert list(tmp_path.iterdir()) == []


def test_a_jobs_folder_is_empty_and_goes_with_the_job(tmp_path: Path) -> None:
    with scratch.of_worker(tmp_path) as own, scratch.of_job(own) as folder:
        before = list(folder.iterdir())
        (folder / "made").touch()

    assert before == []
    assert not folder.exists()


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    stranger = tmp_path / "something"
    stranger.mkdir()
    unlocked = tmp_path / f"{scratch.PREFIX}so-new-that-it-has-no-lock"
    unlocked.mkdir()

    with scratch.of_worker(tmp_path):
        pass

    assert set(tmp_path.iterdir()) == {stranger, unlocked}
