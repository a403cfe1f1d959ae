"""Which tensors of a model take part, by their names, shapes and dtypes; no tensor is read.

A kernel is a floating tensor of two or more dimensions that is neither an embedding nor the head.
The one table of name patterns is `DEFAULT_NAMES`; an extraction may bring another.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from service.layout.fit import PATCHABLE
from service.names import TensorAddress


class Role(StrEnum):
    """What a tensor is to an extraction."""

    KERNEL = "kernel"
    EMBEDDING = "embedding"
    HEAD = "head"
    VECTOR = "vector"
    """A bias, or a part of a norm: rides beside a kernel or stays behind."""
    COUNTER = "counter"
    OTHER = "other"
    """Of a dtype that is never patched, or a single number."""


@dataclass(frozen=True, slots=True)
class NameTable:
    """Glob patterns for tensor names, once wrappers such as `module.` are off."""

    embeddings: tuple[str, ...]
    heads: tuple[str, ...]
    stems: tuple[str, ...]
    """First in forward order, and kernels even where a pattern of embeddings matches."""


DEFAULT_NAMES: Final = NameTable(
    embeddings=(
        *("*embed_tokens.*", "*embed_positions.*", "*tok_embeddings.*", "*wte.*", "*wpe.*"),
        *("*word_embeddings.*", "*position_embeddings*", "*token_type_embeddings.*"),
        *("*token_embedding.*", "*position_embedding.*", "*positional_embedding*", "*pos_embed*"),
        *("*cls_token*", "*class_token*", "*class_embedding*", "*dist_token*", "*reg_token*"),
        *("*mask_token*", "*relative_position_bias_table*", "*relative_attention_bias.*"),
        *("embedding.*", "embeddings.*", "*.embedding.weight", "*.embeddings.weight"),
        *("shared.weight", "emb.*"),
    ),
    heads=(
        *("head.*", "heads.*", "head_dist.*", "fc.*", "classifier.*", "cls_classifier.*"),
        *("distillation_classifier.*", "lm_head.*", "cls.*", "score.*", "qa_outputs.*"),
        *("output_projection.*", "classification_head.*", "logits.*", "last_linear.*"),
        *("aux_classifier.*", "AuxLogits.fc.*", "aux1.fc2.*", "aux2.fc2.*"),
    ),
    stems=(
        *("*patch_embed.*", "*patch_embedding.*", "*patch_embeddings.*", "stem.*", "stem_*"),
        *("*.embeddings.convolution.*", "*.embedder.*", "conv_proj.*", "conv_stem.*"),
        *("conv1.*", "conv_1.*", "Conv2d_1a*", "features.conv0.*", "visual.conv1.*"),
    ),
)

_WRAPPERS = re.compile(r"^(?:(?:module|model|net|network|_orig_mod)\.)+")
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Layer:
    """One tensor of a pair of models, as the clean one names it."""

    address: TensorAddress
    shape: tuple[int, ...]
    dtype: str
    role: Role

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.address.name

    @property
    def numel(self) -> int:
        """How many elements it has."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count


def role_of(name: str, dtype: str, shape: Sequence[int], names: NameTable = DEFAULT_NAMES) -> Role:
    """What the tensor is; names decide before shapes, so that a head's bias is the head's."""
    if name.endswith("num_batches_tracked"):
        return Role.COUNTER
    if _matches(name, names.heads):
        return Role.HEAD
    if _matches(name, names.embeddings) and not _matches(name, names.stems):
        return Role.EMBEDDING
    if dtype not in PATCHABLE or len(shape) == 0:
        return Role.OTHER
    return Role.KERNEL if len(shape) > 1 else Role.VECTOR


def _matches(name: str, patterns: Sequence[str]) -> bool:
    bare = _WRAPPERS.sub("", name)
    return any(fnmatchcase(bare, pattern) for pattern in patterns)


def forward_order(
    layers: Sequence[Layer], names: NameTable = DEFAULT_NAMES, recorded: Sequence[str] | None = None
) -> tuple[Layer, ...]:
    """The layers in the order in which data passes them, as well as it is known.

    `recorded` lists names, or `path:name` where files repeat them, as a checkpoint held them or
    somebody gave them; what it does not name comes last, as do all tensors without it: in natural
    order (`block.2` before `block.10`), the stem first and the head last.
    """
    place = {name: number for number, name in enumerate(recorded or ())}

    def key(layer: Layer) -> tuple[int, tuple[int, tuple[tuple[str, int], ...], str]]:
        by_name = place.get(layer.name, len(place))
        return place.get(str(layer.address), by_name), _natural_key(layer, names)

    return tuple(sorted(layers, key=key))


def _natural_key(layer: Layer, names: NameTable) -> tuple[int, tuple[tuple[str, int], ...], str]:
    if layer.role is Role.HEAD:
        rank = 2
    else:
        rank = 0 if layer.role is Role.EMBEDDING or _matches(layer.name, names.stems) else 1
    words = _DIGITS.split(layer.name)
    # Text and number alternate, so that 2 comes before 10 and texts compare with texts.
    key = tuple(("", int(word)) if odd % 2 else (word, 0) for odd, word in enumerate(words))
    return rank, key, layer.address.path
