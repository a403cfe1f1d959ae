# mypy: ignore-errors
# It runs in an environment of its own, whose packages are not here.
"""Asks a huggingface_hub for everything that reads: read_hub.py REPO REVISION.

Prints JSON with what came back; runs with 0.36, 1.x and 2.x.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download

FILE = "model.safetensors"


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def main() -> None:
    repo, revision = sys.argv[1:]
    api, author = HfApi(), repo.partition("/")[0]
    info = api.model_info(repo, revision=revision, files_metadata=True)
    snapshot = Path(snapshot_download(repo, revision=revision))
    refs = api.list_repo_refs(repo)
    metadata = api.get_safetensors_metadata(repo, revision=revision)
    with HfFileSystem().open(f"{repo}@{revision}/{FILE}", "rb") as file:
        file.seek(8)
        part = file.read(100)
    found: dict[str, Any] = {
        "version": huggingface_hub.__version__,
        "download": sha256(hf_hub_download(repo, FILE, revision=revision)),
        "snapshot": {str(p.relative_to(snapshot)): sha256(p) for p in files_below(snapshot)},
        "commit": snapshot.name,
        "info": {"sha": info.sha, "files": sorted(s.rfilename for s in info.siblings)},
        "by_commit": sha256(hf_hub_download(repo, FILE, revision=info.sha)),
        "models": sorted(model.id for model in api.list_models(author=author, limit=3)),
        "all_models": sorted(model.id for model in api.list_models(author=author)),
        "searched": [model.id for model in api.list_models(search=repo)],
        "refs": [[ref.name for ref in group] for group in (refs.branches, refs.tags)],
        "commits": [commit.title for commit in api.list_repo_commits(repo, revision=revision)],
        "files": sorted(api.list_repo_files(repo, revision=revision)),
        "tree": [i.path for i in api.list_repo_tree(repo, revision=revision, recursive=True)],
        "paths": [i.path for i in api.get_paths_info(repo, [FILE, "no"], revision=revision)],
        "parameters": sum(metadata.parameter_count.values()),
        "range": hashlib.sha256(part).hexdigest(),
        "exists": [
            api.repo_exists(repo),
            api.repo_exists(repo + "-not"),
            api.revision_exists(repo, revision),
            api.revision_exists(repo, "main+nothing=1"),
            api.file_exists(repo, FILE, revision=revision),
            api.file_exists(repo, "nothing.bin", revision=revision),
        ],
        "whoami": api.whoami()["name"],
    }
    print(json.dumps(found))  # noqa: T201


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


main()
