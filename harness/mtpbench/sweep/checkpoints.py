"""What a checkpoint on this machine says of its MTP layers; hub ids and other machines' paths say nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MTP_KEYS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers", "n_predict")
"""How configurations name the number of MTP layers (DeepSeek, GLM, MiMo; Qwen3-Next; others)."""


def mtp_layers(model_path: str) -> int | None:
    """MTP layers that a local checkpoint's config.json declares; None where that can't be known.

    0 where the file is there, is readable, and names none.
    """
    config = Path(model_path) / "config.json"
    try:
        data = json.loads(config.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(data, dict):
        return None
    return max((_count(data, key) for key in MTP_KEYS), default=0)


def _count(config: dict[str, Any], key: str) -> int:
    """The key's value at the top or one level down (`text_config` of models that also see)."""
    places = [config, *(value for value in config.values() if isinstance(value, dict))]
    return max((place[key] for place in places if isinstance(place.get(key), int)), default=0)
