"""PyTorch checkpoints, over HTTP: converted by a worker, published as safetensors, and usable."""

import io
import json
from collections import OrderedDict
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from tests.e2e.bench import Bench, refused

pytestmark = pytest.mark.xdist_group("service")


class Block(nn.Module):
    """A basic block of a residual net."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.downsample = nn.Sequential(nn.Conv2d(inside, outside, 1, 2), nn.BatchNorm2d(outside))


class ResNet(nn.Module):
    """Names whose order as text is not that in which data passes them: `layer10`, `zero_stem`."""

    def __init__(self) -> None:
        super().__init__()
        self.zero_stem = nn.Conv2d(1, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer2 = Block(4, 6)
        self.layer10 = Block(6, 8)
        self.fc = nn.Linear(8, 10)


def checkpoint(state: object) -> bytes:
    out = io.BytesIO()
    torch.save(state, out)
    return out.getvalue()


def moved(state: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The same net, trained a little further."""
    draw = torch.Generator().manual_seed(seed)
    return OrderedDict(
        (name, t + 0.05 * torch.rand(t.shape, generator=draw) if t.is_floating_point() else t)
        for name, t in state.items()
    )


def published(bench: Bench, name: str, files: dict[str, bytes]) -> dict[str, Any]:
    """Publish files that need converting; answers the operation once it has ended."""
    bench.describe("models", name)
    digests = {path: bench.upload(content) for path, content in files.items()}
    return bench.ended(bench.publish(name, digests))


def test_a_checkpoint_becomes_a_version_and_first_n_follows_its_order(bench: Bench) -> None:
    torch.manual_seed(0)
    clean = ResNet().state_dict()
    wrapped = {"epoch": 9, "state_dict": {f"module.{n}": t for n, t in clean.items()}}

    done = published(bench, "clean", {"net.pth": checkpoint(wrapped), "README.md": b"# net"})
    published(bench, "robust", {"net.pth": checkpoint(moved(clean, 1))})

    assert done["state"] == "succeeded", done
    assert done["result"]["left_out"] == [{"path": "net.pth", "name": "epoch"}]
    version = bench.get(done["result"]["links"]["version"])
    assert [file["path"] for file in version["files"]] == ["README.md", "net.safetensors"]
    assert version["conversion"]["converted"]["net.safetensors"]["path"] == "net.pth"
    content = bench.client.get(f"{bench.of('models', 'clean')}/versions/1/files/net.safetensors")
    assert content.content == save(dict(clean), {"format": "pt"})
    tensors = bench.get(f"{done['result']['links']['tensors']}?limit=200")["items"]
    assert [t["name"] for t in sorted(tensors, key=lambda t: t["place"])] == list(clean)
    assert f"{bench.ref('clean')}@1" in bench.client.get(f"/operations/{done['id']}").text
    result = bench.patch("stem", "clean", "robust", layers={"first": 3})
    profile = bench.client.get(result["links"]["profile"]).json()
    kernels = [n for n, t in clean.items() if t.ndim > 1 and not n.startswith("fc")]
    assert [layer["name"] for layer in profile["kernels"]] == kernels
    assert [layer["name"] for layer in profile["kernels"] if layer["kept"]] == kernels[:3]


def test_the_same_checkpoint_again_is_the_same_version(bench: Bench) -> None:
    content = checkpoint({"a.weight": torch.ones(2, 2)})
    digest = bench.upload(content)
    published(bench, "net", {"net.pt": content})

    again = bench.publish("net", {"net.pt": digest})

    assert (again.status_code, again.json()["number"]) == (200, 1)


def test_shards_with_an_index_become_shards_with_an_index(bench: Bench) -> None:
    shared = torch.ones(3)
    first, second = {"z": torch.zeros(2, 2), "emb": shared, "head": shared}, {"a": torch.ones(1)}
    names = [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    index = {"weight_map": {**dict.fromkeys(first, names[0]), **dict.fromkeys(second, names[1])}}

    done = published(
        bench,
        "net",
        {
            names[0]: checkpoint(first),
            names[1]: checkpoint(second),
            "pytorch_model.bin.index.json": json.dumps(index).encode(),
            "optimizer.pt": b"not even looked at",
        },
    )

    assert done["state"] == "succeeded", done
    version = bench.get(done["result"]["links"]["version"])
    assert [file["path"] for file in version["files"]] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert version["conversion"]["tied"] == [
        {"path": "model-00001-of-00002.safetensors", "name": "head", "same_as": "emb"}
    ]
    assert version["conversion"]["left_out"] == [{"path": "optimizer.pt", "name": None}]
    files = f"{bench.of('models', 'net')}/versions/1/files"
    whole = load(bench.client.get(f"{files}/model-00001-of-00002.safetensors").content)
    assert torch.equal(whole["emb"], shared)


class Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return eval, ("print('run')",)


def test_a_checkpoint_that_would_run_code_makes_no_version(bench: Bench) -> None:
    content = checkpoint({"a": torch.ones(1), "b": Runs()})
    bench.describe("models", "net")
    digest = bench.upload(content)

    with bench.nothing_left():
        operation = bench.ended(bench.publish("net", {"net.pth": digest}))

    assert operation["state"] == "failed"
    assert operation["problem"]["type"] == "/problems/unsafe-checkpoint"
    assert "builtins.eval" in operation["problem"]["detail"]


def test_what_is_no_checkpoint_is_refused_at_once(bench: Bench) -> None:
    bench.describe("models", "net")
    digest = bench.upload(b"GGUF" + bytes(100))

    with bench.nothing_left():
        answer = bench.publish("net", {"net.bin": digest})

    refused(answer, 422, "unsupported-format", "net.bin", "GGUF")


def test_an_index_that_names_a_missing_checkpoint_is_refused_at_once(bench: Bench) -> None:
    index = {"weight_map": {"a": "pytorch_model-00001-of-00001.bin", "b": "other.bin"}}
    bench.describe("models", "net")
    files = {
        "pytorch_model-00001-of-00001.bin": checkpoint({"a": torch.ones(1)}),
        "pytorch_model.bin.index.json": json.dumps(index).encode(),
    }
    digests = {path: bench.upload(content) for path, content in files.items()}

    with bench.nothing_left():
        answer = bench.publish("net", digests)

    refused(answer, 422, "bad-file-set", "other.bin")


# ── forward order of safetensors ─────────────────────────────────────────────────────────────


def test_an_order_may_come_with_safetensors_and_is_part_of_the_version(bench: Bench) -> None:
    tensors = {"b.weight": torch.ones(2, 2), "a.weight": torch.zeros(2, 2)}
    bench.describe("models", "net")
    files = {"net.safetensors": bench.upload(save(tensors))}
    address = f"{bench.of('models', 'net')}/versions"

    plain = bench.client.post(address, json={"files": files})
    given = bench.client.post(address, json={"files": files, "forward_order": list(tensors)})
    again = bench.client.post(address, json={"files": files, "forward_order": list(tensors)})
    either = bench.client.post(address, json={"files": files})

    assert [each.status_code for each in (plain, given, again, either)] == [201, 201, 200, 200]
    assert [each.json()["number"] for each in (plain, given, again, either)] == [1, 2, 2, 2]
    places = [
        {t["name"]: t["place"] for t in bench.get(f"{address}/{number}/tensors")["items"]}
        for number in (1, 2)
    ]
    assert places == [{"a.weight": None, "b.weight": None}, {"b.weight": 0, "a.weight": 1}]


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (["a", "nothing"], "'nothing' is not there"),
        (["a", "a"], "'a' twice"),
        ([["x.safetensors", "a"]], "'x.safetensors'"),
    ],
)
def test_an_order_that_does_not_belong_to_the_files_is_refused(
    bench: Bench, order: list[Any], told: str
) -> None:
    bench.describe("models", "net")
    files = {"net.safetensors": bench.upload(save({"a": torch.ones(1)}))}

    with bench.nothing_left():
        answer = bench.client.post(
            f"{bench.of('models', 'net')}/versions", json={"files": files, "forward_order": order}
        )

    refused(answer, 422, "bad-forward-order", told)
