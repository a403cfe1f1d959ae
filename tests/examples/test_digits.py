from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Generator, nn

from examples import digits
from service import names
from service.tensors import layers, norms

CORRUPTIONS = pytest.mark.parametrize("corruption", digits.CORRUPTIONS.values())


def weights(seed: int) -> digits.StateDict:
    return digits.untrained(Generator().manual_seed(seed)).state_dict()


def test_the_parts_hold_every_digit_once() -> None:
    parts = digits.split()

    images = torch.cat([parts.origin.images, parts.tuning.images, parts.test.images])

    assert len(images) == 1797
    assert [len(part) for part in (parts.origin, parts.tuning, parts.test)] == [600, 700, 497]
    assert len({image.numpy().tobytes() for image in images}) == 1797
    assert 0 <= images.min() < images.max() <= 1


@CORRUPTIONS
def test_a_corruption_depends_on_its_generator_alone(corruption: digits.Corruption) -> None:
    images = digits.split().test.images[:8]
    before = images.clone()

    first, again = (corruption(images, Generator().manual_seed(7)) for _ in range(2))

    assert torch.equal(first, again)
    assert torch.equal(images, before)
    assert not torch.equal(first, images)
    assert 0 <= first.min() < first.max() <= 1


def test_noise_of_another_seed_is_another_noise() -> None:
    images = digits.split().test.images[:8]

    one, two = (digits.gaussian_noise(images, Generator().manual_seed(seed)) for seed in (1, 2))

    assert not torch.equal(one, two)


def test_contrast_keeps_an_image_s_mean_and_a_seventh_of_its_spread() -> None:
    images = digits.split().test.images[:8]

    dull = digits.contrast(images, Generator())

    torch.testing.assert_close(dull.mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3)))
    torch.testing.assert_close(dull.std(dim=(1, 2, 3)), 0.15 * images.std(dim=(1, 2, 3)))


def test_corruptions_and_the_model_have_names_that_the_registry_takes() -> None:
    namespace, _, _ = digits.MODEL_NAME.partition("/")

    patches = [names.patch_name(f"{namespace}/{corruption}") for corruption in digits.CORRUPTIONS]

    assert str(names.model_name(digits.MODEL_NAME)) == digits.MODEL_NAME
    assert all(patch.namespace == namespace for patch in patches)


def test_the_net_is_of_the_promised_size() -> None:
    assert sum(tensor.numel() for tensor in weights(0).values()) == 306_602


def test_the_service_knows_the_net_s_kernels_and_their_biases() -> None:
    found = [
        layers.Layer(
            names.TensorAddress("model.safetensors", name),
            tuple(tensor.shape),
            "F32",
            layers.role_of(name, "F32", tuple(tensor.shape)),
        )
        for name, tensor in weights(0).items()
    ]

    ordered = layers.forward_order(sorted(found, key=lambda layer: layer.name))
    attached = norms.attach(ordered)

    kernels = [layer for layer in ordered if layer.role is layers.Role.KERNEL]
    assert [kernel.name for kernel in kernels] == [f"conv{n}.weight" for n in range(1, 8)]
    for number, kernel in enumerate(kernels, start=1):
        riders = attached.riders[kernel.address]
        assert [rider.name for rider in riders] == [f"conv{number}.bias"]


def test_an_untrained_net_guesses(tmp_path: Path) -> None:
    save_file(weights(0), tmp_path / "model.safetensors")

    from_memory = digits.accuracy(weights(0))
    from_file = digits.accuracy(tmp_path / "model.safetensors")

    assert from_memory == from_file
    assert 0.0 < from_memory < 0.3


def test_weights_of_another_net_are_not_measured() -> None:
    with pytest.raises(RuntimeError, match="conv1"):
        digits.accuracy(nn.Linear(2, 2).state_dict())


def test_a_corruption_that_is_not_there_is_not_measured() -> None:
    with pytest.raises(KeyError, match="fog"):
        digits.accuracy(weights(0), "fog")


def test_training_moves_a_net_and_nets_of_one_seed_alike() -> None:
    few = digits.split().tuning[: 2 * digits.BATCH]
    recipe = digits.Recipe(epochs=1, peak_rate=0.02, seed=3, corruption=digits.contrast)
    nets = [digits.untrained(Generator().manual_seed(3)) for _ in range(2)]

    for net in nets:
        digits.train(net, few, recipe, lambda: None)

    one, two = (net.state_dict() for net in nets)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(not torch.equal(one[name], tensor) for name, tensor in weights(3).items())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> digits.Split:
    """A training in a second or two: a batch of each part, one epoch each."""
    whole = digits.split()
    few = slice(digits.BATCH)
    parts = digits.Split(whole.origin[few], whole.tuning[few], whole.test[few])
    monkeypatch.setattr(digits, "split", lambda: parts)
    monkeypatch.setattr(digits, "THREADS", 1)
    monkeypatch.setattr(digits, "ORIGIN_EPOCHS", 1)
    monkeypatch.setattr(digits, "TUNING_EPOCHS", 1)
    return parts


@pytest.mark.usefixtures("small")
def test_training_all_gives_every_model_and_tells_how_far_it_is() -> None:
    told: list[tuple[str, float]] = []

    models = digits.train_all(lambda name, done: told.append((name, done)), seed=0)

    assert list(models) == ["origin", "clean", *digits.CORRUPTIONS]
    assert [name for name, _ in told] == list(models)
    assert all(one < two for (_, one), (_, two) in pairwise(told))
    assert told[-1][1] == 1.0
    kernels = [model["conv1.weight"] for model in models.values()]
    assert all(not torch.equal(one, two) for one, two in pairwise(kernels))


@pytest.mark.usefixtures("small")
def test_training_and_measuring_leave_the_caller_s_threads_and_randomness_alone() -> None:
    torch.set_num_threads(2)
    before = torch.get_rng_state()

    models = digits.train_all(lambda _name, _done: None)
    for corruption in digits.CORRUPTIONS:
        assert 0.0 <= digits.accuracy(models["clean"], corruption) <= 1.0

    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), before)
