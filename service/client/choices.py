"""What a dry run found, for people."""

from collections.abc import Mapping
from typing import Any


def choice_text(choice: Mapping[str, Any]) -> str:
    """One choice of layers, and what it would keep."""
    match choice["layers"]:
        case {"energy": share}:
            name = f"energy {share:g}"
        case {"first": count}:
            name = f"first {count}"
        case other:
            name = str(other)
    sizes = [f"{quality} {size / 1000:.1f}" for quality, size in choice["estimated_bytes"].items()]
    return (
        f"{name}: {choice['kernels']} kernels, {choice['parameters']} parameters, "
        f"{choice['energy']:.0%} of the change; {', '.join(sizes)} kB"
    )
