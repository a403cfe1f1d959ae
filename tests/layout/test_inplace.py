import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file, save, save_file

from service import errors
from service.layout import inplace
from service.layout.disk import Disk
from service.layout.pieces import Change, WeightFile, file_digest, write_copy
from service.layout.sidecar import AppliedRecipe, FileRecord, Sidecar
from service.names import Digest, digest_of

Tensors = dict[str, NDArray[np.float32]]
FILE = "model.safetensors"


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@dataclass
class MortalDisk(Disk):
    """Dies before its step number `dies_at`; tears a long write into pieces of `chunk_bytes`."""

    dies_at: int = 10**9
    chunk_bytes: int = 24
    steps: list[tuple[str, Path]] = field(default_factory=list)

    def step(self, what: str, path: Path) -> None:
        if len(self.steps) >= self.dies_at:
            raise Killed
        self.steps.append((what, path))

    def reach_disk(self, descriptor: int) -> None:
        """What a dead process wrote is still with the kernel: no need to wait for the disk."""


def random_tensors(seed: int, names: Mapping[str, int]) -> Tensors:
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(size, dtype=np.float32) for name, size in names.items()}


@dataclass
class Scene:
    """A model in a folder, two recipes on it, and what its files must be under each."""

    folder: Path
    target: Path
    base: dict[str, Tensors]
    overlays: dict[str, dict[str, Tensors]]

    def change(self, recipe: str) -> Change:
        files = {}
        for path in self.base:
            tensors = self.overlays[recipe].get(path)
            overlay = self.folder / "overlays" / recipe / path
            if tensors:
                overlay.parent.mkdir(parents=True, exist_ok=True)
                save_file(tensors, overlay)
            files[path] = WeightFile(
                digest_of(save(self.base[path])),
                overlay if tensors else None,
                file_digest(overlay) if tensors else None,
            )
        return Change("ns/model@1", AppliedRecipe(digest_of(recipe.encode()), recipe), files)

    def digests(self, recipe: str | None) -> dict[str, Digest]:
        """What the safetensors library writes when the tensors are replaced in memory."""
        changed = self.overlays[recipe] if recipe else {}
        return {
            path: digest_of(save(tensors | changed.get(path, {})))
            for path, tensors in self.base.items()
        }

    def found(self) -> dict[str, Digest]:
        is_folder = self.target.is_dir()
        return {p: file_digest(self.target / p if is_folder else self.target) for p in self.base}

    @property
    def record(self) -> Path:
        return self.target.with_name(self.target.name + ".patchbay")

    def is_clean(self) -> bool:
        return self.found() == self.digests(None) and not self.record.exists()


def make_scene(
    folder: Path, base: dict[str, Tensors], overlays: dict[str, dict[str, Tensors]]
) -> Scene:
    if list(base) == [FILE]:
        target = folder / "local-name.safetensors"
        save_file(base[FILE], target)
    else:
        target = folder / "model"
        for path, tensors in base.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, target / path)
    return Scene(folder, target, base, overlays)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    base = random_tensors(0, {"a": 9, "b": 7, "c": 30, "d": 4})
    overlays = {
        "mild": {FILE: random_tensors(1, {"a": 9, "c": 30})},
        "bold": {FILE: random_tensors(2, {"c": 30, "d": 4})},
    }
    return make_scene(tmp_path, {FILE: base}, overlays)


@pytest.fixture
def sharded(tmp_path: Path) -> Scene:
    base = {
        "unet/one.safetensors": random_tensors(0, {"a": 9, "b": 7}),
        "unet/two.safetensors": random_tensors(1, {"a": 5, "c": 8}),
        "vae/one.safetensors": random_tensors(2, {"a": 3}),
    }
    overlays = {
        "mild": {
            "unet/one.safetensors": random_tensors(3, {"a": 9}),
            "unet/two.safetensors": random_tensors(4, {"c": 8}),
        },
        "bold": {"unet/two.safetensors": random_tensors(5, {"a": 5})},
    }
    return make_scene(tmp_path, base, overlays)


@pytest.fixture(params=["scene", "sharded"])
def any_scene(request: pytest.FixtureRequest) -> Scene:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Scene)
    return found


def test_a_patched_file_equals_what_the_library_writes(any_scene: Scene) -> None:
    record = inplace.apply(any_scene.target, any_scene.change("mild"))

    assert any_scene.found() == any_scene.digests("mild")
    assert {path: file.digest for path, file in record.files.items()} == any_scene.found()
    assert inplace.status(any_scene.target) == record


def test_undo_gives_the_base_digest_again_and_leaves_nothing(any_scene: Scene) -> None:
    inplace.apply(any_scene.target, any_scene.change("mild"))

    inplace.undo(any_scene.target)

    assert any_scene.is_clean()


def test_a_switch_takes_off_what_the_new_recipe_does_not_touch(any_scene: Scene) -> None:
    inplace.apply(any_scene.target, any_scene.change("mild"))

    inplace.apply(any_scene.target, any_scene.change("bold"))

    assert any_scene.found() == any_scene.digests("bold")
    inplace.undo(any_scene.target)
    assert any_scene.is_clean()


def test_the_same_recipe_again_changes_nothing(scene: Scene) -> None:
    inplace.apply(scene.target, scene.change("mild"))
    disk = MortalDisk()

    inplace.apply(scene.target, scene.change("mild"), disk)

    assert [what for what, path in disk.steps if path == scene.target] == []


def test_the_undo_kept_beside_the_file_holds_the_base_tensors(scene: Scene) -> None:
    inplace.apply(scene.target, scene.change("mild"))

    inplace.apply(scene.target, scene.change("bold"))

    [kept] = scene.record.rglob("undo/*")
    undo = load_file(kept)
    assert sorted(undo) == ["c", "d"]
    assert all(np.array_equal(undo[name], scene.base[FILE][name]) for name in undo)


# ── killed at any step ───────────────────────────────────────────────────────────────────────


def die_everywhere(
    scene: Scene, before: Callable[[Scene], object], change: Callable[[Scene, Disk], object]
) -> list[Scene]:
    """One copy of `scene` for each step of `change`, killed there."""
    copies: list[Scene] = []
    while True:
        folder = scene.folder.with_name(f"{scene.folder.name}-{len(copies)}")
        copytree(scene.folder, folder)
        target = folder / scene.target.relative_to(scene.folder)
        copy = Scene(folder, target, scene.base, scene.overlays)
        before(copy)
        try:
            change(copy, MortalDisk(dies_at=len(copies)))
        except Killed:
            copies.append(copy)
        else:
            assert len(copies) > 10
            return copies


def test_an_apply_killed_at_any_step_is_finished_or_never_was(any_scene: Scene) -> None:
    killed = die_everywhere(
        any_scene,
        lambda _: None,
        lambda scene, disk: inplace.apply(scene.target, scene.change("mild"), disk),
    )

    for scene in killed:
        record = inplace.recover(scene.target, MortalDisk())

        if record is None:
            assert scene.is_clean()
        else:
            assert scene.found() == scene.digests("mild")
            assert not list(scene.record.rglob("*.part"))
            assert not list(scene.record.rglob("writes/*.safetensors"))


def test_a_switch_killed_at_any_step_is_one_recipe_or_the_other(any_scene: Scene) -> None:
    killed = die_everywhere(
        any_scene,
        lambda scene: inplace.apply(scene.target, scene.change("mild"), MortalDisk()),
        lambda scene, disk: inplace.apply(scene.target, scene.change("bold"), disk),
    )

    for scene in killed:
        record = inplace.recover(scene.target, MortalDisk())

        assert record is not None
        assert record.recipe is not None
        assert scene.found() == scene.digests(record.recipe.reference)
        inplace.undo(scene.target, MortalDisk())
        assert scene.is_clean()


def test_after_a_kill_at_any_step_the_next_apply_goes_on(scene: Scene) -> None:
    killed = die_everywhere(
        scene,
        lambda scene: inplace.apply(scene.target, scene.change("mild"), MortalDisk()),
        lambda scene, disk: inplace.apply(scene.target, scene.change("bold"), disk),
    )

    for copy in killed:
        inplace.apply(copy.target, copy.change("mild"), MortalDisk())

        assert copy.found() == copy.digests("mild")


def test_an_undo_killed_at_any_step_is_finished_by_the_next(any_scene: Scene) -> None:
    killed = die_everywhere(
        any_scene,
        lambda scene: inplace.apply(scene.target, scene.change("mild"), MortalDisk()),
        lambda scene, disk: inplace.undo(scene.target, disk),
    )

    for scene in killed[:-1]:
        inplace.undo(scene.target, MortalDisk())

        assert scene.is_clean()


def test_every_byte_is_synced_before_the_journal_is_published(scene: Scene) -> None:
    disk = MortalDisk()

    inplace.apply(scene.target, scene.change("mild"), disk)

    journal = disk.steps.index(("publish", scene.record / "journal.json"))
    first_touch = next(i for i, (_, path) in enumerate(disk.steps) if path == scene.target)
    written = {path for what, path in disk.steps[:journal] if what == "write"}
    synced = {path for what, path in disk.steps[:journal] if what == "sync"}
    assert written <= synced
    assert journal < first_touch


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_row_of_kills_and_changes_ends_at_a_recipe_and_undoes(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sizes = data.draw(st.dictionaries(st.text("abcdé", min_size=1), st.integers(0, 20), min_size=1))
    chosen = st.lists(st.sampled_from(sorted(sizes)), unique=True, min_size=1)
    overlays = {
        recipe: {FILE: random_tensors(seed, {n: sizes[n] for n in data.draw(chosen)})}
        for seed, recipe in enumerate(["mild", "bold"], 1)
    }
    folder = tmp_path_factory.mktemp("row")
    scene = make_scene(folder, {FILE: random_tensors(0, sizes)}, overlays)

    for action in data.draw(st.lists(st.sampled_from(["mild", "bold", "undo"]), max_size=5)):
        disk = MortalDisk(dies_at=data.draw(st.integers(0, 60)))
        try:
            if action == "undo":
                inplace.undo(scene.target, disk)
            else:
                inplace.apply(scene.target, scene.change(action), disk)
        except (Killed, errors.NothingToUndo):
            pass
    record = inplace.recover(scene.target, MortalDisk())

    if record is not None:
        assert record.recipe is not None
        assert scene.found() == scene.digests(record.recipe.reference)
        inplace.undo(scene.target, MortalDisk())
    assert scene.is_clean()


KILLER = """
import os, pickle, signal, sys
from pathlib import Path
from service.layout import inplace
from service.layout.disk import Disk

class KillingDisk(Disk):
    chunk_bytes = 24
    left = int(sys.argv[3])
    def step(self, what, path):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

inplace.apply(Path(sys.argv[1]), pickle.loads(Path(sys.argv[2]).read_bytes()), KillingDisk())
"""


@pytest.mark.parametrize("share", [0.1, 0.5, 0.7, 0.9])
def test_a_process_killed_for_good_leaves_what_the_next_one_finishes(
    scene: Scene, share: float
) -> None:
    import pickle  # noqa: PLC0415 - our own value, to our own child

    counted = MortalDisk()
    inplace.apply(scene.target, scene.change("mild"), counted)
    inplace.undo(scene.target)
    step = int(share * len(counted.steps))
    change = scene.folder / "change.pickle"
    change.write_bytes(pickle.dumps(scene.change("mild")))

    child = subprocess.run(  # noqa: S603
        [sys.executable, "-c", KILLER, str(scene.target), str(change), str(step)], check=False
    )
    inplace.apply(scene.target, scene.change("mild"))

    assert child.returncode == -signal.SIGKILL
    assert scene.found() == scene.digests("mild")


# ── files that were fetched with their patches on, and copies ─────────────────────────────────


def pulled(scene: Scene) -> Scene:
    """A file as a pull leaves it: patched, recorded, without an undo."""
    change = scene.change("mild")
    save_file(scene.base[FILE] | scene.overlays["mild"][FILE], scene.target)
    wanted = change.files[FILE]
    record = FileRecord(wanted.base_digest, wanted.overlay_digest, file_digest(scene.target))
    inplace.replaced(scene.target, Sidecar(1, change.base, change.recipe, {FILE: record}))
    return scene


def undo_file(scene: Scene, tensors: Tensors) -> Path:
    path = scene.folder / "undo"
    save_file({name: tensors[name] for name in scene.overlays["mild"][FILE]}, path)
    return path


@pytest.mark.parametrize("action", ["undo", "apply"])
def test_a_pulled_file_says_that_it_lacks_its_undo(scene: Scene, action: str) -> None:
    pulled(scene)

    actions = {
        "undo": lambda: inplace.undo(scene.target),
        "apply": lambda: inplace.apply(scene.target, scene.change("bold")),
    }
    with pytest.raises(errors.UndoMissing):
        actions[action]()

    assert scene.found() == scene.digests("mild")


def test_with_its_undo_supplied_it_is_as_if_patched_here(scene: Scene) -> None:
    pulled(scene)

    inplace.supply_undo(scene.target, {FILE: undo_file(scene, scene.base[FILE])})
    inplace.apply(scene.target, scene.change("bold"))

    assert scene.found() == scene.digests("bold")
    inplace.undo(scene.target)
    assert scene.is_clean()


def test_an_undo_that_does_not_give_the_base_is_not_kept(scene: Scene) -> None:
    pulled(scene)
    wrong = random_tensors(7, {"a": 9, "c": 30})

    with pytest.raises(errors.NotVerified):
        inplace.supply_undo(scene.target, {FILE: undo_file(scene, wrong)})

    assert list(scene.record.rglob("undo/*")) == []


def test_a_journal_is_never_carried_out_on_a_file_that_replaced_its_own(scene: Scene) -> None:
    class DiesInTheFile(MortalDisk):
        def step(self, what: str, path: Path) -> None:
            super().step(what, path)
            if path == scene.target and what == "sync":
                raise Killed

    with pytest.raises(Killed):
        inplace.apply(scene.target, scene.change("mild"), DiesInTheFile())
    assert (scene.record / "journal.json").exists()

    inplace.replaced(scene.target, None)
    save_file(scene.base[FILE], scene.target)

    assert inplace.recover(scene.target) is None
    assert scene.is_clean()


def test_a_copy_is_patched_and_the_base_untouched(scene: Scene) -> None:
    wanted = scene.change("mild").files[FILE]

    digest = write_copy(scene.target, wanted, scene.folder / "new" / "copy.safetensors")

    assert digest == scene.digests("mild")[FILE]
    assert scene.is_clean()


def test_a_copy_of_another_base_is_refused(scene: Scene) -> None:
    wanted = scene.change("mild").files[FILE]
    save_file(random_tensors(9, {"a": 9, "b": 7, "c": 30, "d": 4}), scene.target)

    with pytest.raises(errors.FileNotAsRecorded):
        write_copy(scene.target, wanted, scene.folder / "copy")

    assert not (scene.folder / "copy").exists()


# ── refused ──────────────────────────────────────────────────────────────────────────────────


def test_a_symbolic_link_is_refused_and_its_target_untouched(scene: Scene) -> None:
    link = scene.folder / "link.safetensors"
    link.symlink_to(scene.target)

    with pytest.raises(errors.LinkedFile, match="-o FILE"):
        inplace.apply(link, scene.change("mild"))

    assert scene.is_clean()


def test_a_file_with_a_second_name_is_refused(scene: Scene) -> None:
    os.link(scene.target, scene.folder / "second")

    with pytest.raises(errors.LinkedFile, match="hard links"):
        inplace.apply(scene.target, scene.change("mild"))

    assert scene.is_clean()


def test_a_linked_shard_inside_a_folder_is_refused(sharded: Scene) -> None:
    shard = sharded.target / "unet/two.safetensors"
    shard.rename(sharded.folder / "blob")
    shard.symlink_to(sharded.folder / "blob")

    with pytest.raises(errors.LinkedFile, match=r"two\.safetensors"):
        inplace.apply(sharded.target, sharded.change("mild"))

    assert sharded.is_clean()


def test_a_file_that_is_not_the_base_is_refused(scene: Scene) -> None:
    save_file(random_tensors(9, {"a": 9, "b": 7, "c": 30, "d": 4}), scene.target)
    before = file_digest(scene.target)

    with pytest.raises(errors.FileNotAsRecorded):
        inplace.apply(scene.target, scene.change("mild"))

    assert file_digest(scene.target) == before
    assert not scene.record.exists()


def test_a_file_changed_behind_our_back_is_not_undone_over(scene: Scene) -> None:
    inplace.apply(scene.target, scene.change("mild"))
    with scene.target.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")

    with pytest.raises(errors.FileNotAsRecorded):
        inplace.undo(scene.target)

    assert not scene.record.joinpath("journal.json").exists()


def test_an_overlay_whose_bytes_are_damaged_is_refused(scene: Scene) -> None:
    change = scene.change("mild")
    overlay = change.files[FILE].overlay
    assert overlay is not None
    with overlay.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")

    with pytest.raises(errors.NotVerified, match="fetch it again"):
        inplace.apply(scene.target, change)

    assert scene.is_clean()


def test_an_overlay_of_another_model_is_refused(scene: Scene) -> None:
    scene.overlays["mild"] = {FILE: random_tensors(1, {"a": 9, "stranger": 2})}

    with pytest.raises(errors.OverlayDoesNotFit, match="stranger"):
        inplace.apply(scene.target, scene.change("mild"))

    assert scene.is_clean()


def test_writes_that_went_bad_on_disk_end_at_the_base(scene: Scene) -> None:
    class BadDisk(MortalDisk):
        def step(self, what: str, path: Path) -> None:
            super().step(what, path)
            if what == "publish" and path.name == "journal.json":
                [writes] = scene.record.rglob("writes/*.safetensors")
                writes.write_bytes(writes.read_bytes()[:-1] + b"\x7f")

    with pytest.raises(errors.NotVerified, match="the base was put back"):
        inplace.apply(scene.target, scene.change("mild"), BadDisk())

    assert scene.is_clean()


def test_undo_without_a_record_says_so(scene: Scene) -> None:
    with pytest.raises(errors.NothingToUndo):
        inplace.undo(scene.target)

    assert scene.is_clean()


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", "", "a//b", "C:x"])
def test_a_record_that_names_a_file_outside_is_refused(scene: Scene, path: str) -> None:
    inplace.apply(scene.target, scene.change("mild"))
    record = scene.record / "recipe.json"
    record.write_text(record.read_text().replace(f'"{FILE}"', f'"{path}"'))

    with pytest.raises(errors.BadSidecar, match="unsafe path"):
        inplace.undo(scene.target)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', "\x00", "{" * 100_000])
def test_a_record_that_is_no_record_is_refused(scene: Scene, text: str) -> None:
    inplace.apply(scene.target, scene.change("mild"))
    (scene.record / "recipe.json").write_text(text)

    with pytest.raises(errors.BadSidecar):
        inplace.undo(scene.target)


def test_two_runs_on_one_file_do_not_meet(scene: Scene) -> None:
    class Meeting(MortalDisk):
        def step(self, what: str, path: Path) -> None:
            super().step(what, path)
            with pytest.raises(errors.FileBusy):
                inplace.undo(scene.target)

    inplace.apply(scene.target, scene.change("mild"), Meeting())

    assert scene.found() == scene.digests("mild")
