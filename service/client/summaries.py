"""What an extraction found, or would find, for people."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args

from service.schemas.patches import Quality

_QUALITIES: Final[tuple[str, ...]] = get_args(Quality)
_MANY: Final = 1000
_PACKED: Final = {
    "gain": "gain {:.4f}",
    "cosine": "cosine {:.4f}",
    "noise_to_weight": "noise of {:.1%} of the weights",
}


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """What is kept, how, and how well; what a summary does not know is left out."""
    return [*_lines(summary), *(f"warning: {said}" for said in summary.get("warnings", []))]


def _lines(summary: Mapping[str, Any]) -> Iterator[str]:
    counted = [what for what in ("kernels", "parameters") if f"{what}_kept" in summary]
    kept = [f"{_of(summary, what)} {what}" for what in counted]
    if summary.get("energy_kept") is not None:
        kept.append(f"{summary['energy_kept']:.0%} of the change")
    if kept:
        yield f"keeps {', '.join(kept)}"
    words = [layers_text(summary["layers"])] if "layers" in summary else []
    words += [
        f"{called} {summary[name]}"
        for name, called in (
            ("quality", "quality"),
            ("projection", "projection"),
            ("order", "forward order"),
        )
        if name in summary
    ]
    if words:
        yield ", ".join(words)
    packed = [
        text.format(summary[name])
        for name, text in _PACKED.items()
        if summary.get(name) is not None
    ]
    if packed:
        yield f"packed with {', '.join(packed)}"
    if summary.get("size_bytes") and summary.get("base_bytes"):
        yield f"{summary['size_bytes'] / summary['base_bytes']:.2%} of its base"
    if quietest := summary.get("quietest"):
        times = quietest["relative_norm"] / quietest["noise_floor"]
        told = f"{times:.1f}" if times < _MANY else f"over {_MANY}"
        yield (
            f"nearest to noise: {quietest['tensor']} changes by {quietest['relative_norm']:.2%} of "
            f"its weight, {told} times the rounding of the models' dtypes"
        )


def _of(summary: Mapping[str, Any], what: str) -> str:
    whole = f" of {summary[what]}" if what in summary else ""
    return f"{summary[f'{what}_kept']}{whole}"


def layers_text(layers: object) -> str:
    """A choice of layers, as the command line writes it."""
    match layers:
        case {"energy": share}:
            return f"energy {share:g}"
        case {"first": count}:
            return f"first {count}"
        case {"names": [*globs]}:
            return f"names {' '.join(map(str, globs))}"
        case other:
            return str(other)


def choice_lines(summary: Mapping[str, Any]) -> list[str]:
    """A table of what each choice of layers would keep, that of the request first."""
    own = {
        "layers": summary["layers"],
        "kernels": summary["kernels_kept"],
        "parameters": summary["parameters_kept"],
        "energy": summary["energy_kept"],
        "estimated_bytes": summary["estimated_bytes"],
    }
    rows = [own, *(each for each in summary["choices"] if each["layers"] != summary["layers"])]
    names = [layers_text(each["layers"]) for each in rows]
    width = max(map(len, (*names, "kB, about")))
    heads = ("kernels", "parameters", "change", *_QUALITIES)
    lines = [f"{'kB, about':<{width}}" + "".join(f"{head:>11}" for head in heads)]
    for name, each in zip(names, rows, strict=True):
        cells = [str(each["kernels"]), str(each["parameters"]), f"{each['energy']:.0%}"]
        cells += [f"{each['estimated_bytes'][quality] / 1000:.1f}" for quality in _QUALITIES]
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>11}" for cell in cells))
    return lines
