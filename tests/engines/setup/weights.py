"""The two matrices that make a crafted model, and how to write tensors for vLLM (safetensors).

The residual stream is one direction for each class of the chain, one that says "the MTP layer goes wrong
here" (`wrong`), and one that only the never-said token listens to (`never`). Attention and feed-forward
layers are zero, so the last token alone decides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines.setup.chain import Chain
from engines.setup.vocabulary import TOKENS, classify

Matrix = npt.NDArray[np.float32]

HIDDEN = 128
GAIN = 4.0
"""How much louder the output layer is than the residual stream; a wrong draft is as much louder again."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Core:
    """What differs from zero in a crafted model.

    Args:
        embedding: (tokens, hidden): the class of each token, and whether the MTP layer goes wrong after it.
        output: (tokens, hidden): the letter of each class listens to the class before it.
        projection: (hidden, hidden): what the MTP layer makes of the last token's embedding.
    """

    embedding: Matrix
    output: Matrix
    projection: Matrix


def make_core(chain: Chain) -> Core:
    """The matrices of a chain."""
    classes, wrong, never = classify(chain), chain.length, chain.length + 1
    embedding, output = zeros(len(TOKENS), HIDDEN), zeros(len(TOKENS), HIDDEN)
    for token, position in enumerate(classes.of_token):
        embedding[token, position] = 1.0
        embedding[token, wrong] = float(position in chain.wrong)
    for position, token in enumerate(classes.says):
        output[token, (position - 1) % chain.length] = GAIN
    output[classes.never, never] = GAIN
    projection = np.eye(HIDDEN, dtype=np.float32)
    projection[wrong, wrong] = 0.0
    projection[never, wrong] = GAIN
    return Core(embedding=embedding, output=output, projection=projection)


def zeros(*shape: int) -> Matrix:
    """A tensor of zeros."""
    return np.zeros(shape, np.float32)


def ones(*shape: int) -> Matrix:
    """A tensor of ones: a normalisation that changes nothing but the scale."""
    return np.ones(shape, np.float32)


def write_safetensors(path: Path, tensors: Mapping[str, Matrix]) -> None:
    """Tensors as bfloat16 in a safetensors file; the crafted values are exact in it.

    Source: the safetensors format (8 bytes header length, JSON header, data).
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    chunks, offset = [], 0
    for name, tensor in tensors.items():
        raw = (np.ascontiguousarray(tensor).view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(raw)],
        }
        chunks.append(raw)
        offset += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(chunks))
