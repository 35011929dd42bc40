"""Clip scores as one safetensors file: arrays as tensors, names as JSON metadata; equal scores give equal bytes."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from models.errors import DataError
from models.predict import ClipScores

_TEXT = ("site", "clip_id", "group", "label")


def save_scores(scores: ClipScores, path: Path) -> None:
    """Write scores to `path`."""
    tensors: dict[str, Any] = {}
    names: dict[str, str] = {"reasons": json.dumps(list(scores.reasons))}
    for field in fields(ClipScores):
        value = getattr(scores, field.name)
        if field.name in _TEXT:
            names[field.name] = json.dumps([str(x) for x in value])
        elif field.name != "reasons":
            tensors[field.name] = np.ascontiguousarray(value)
    # one metadata key: safetensors writes several in an order that changes from process to process
    save_file(tensors, path, metadata={"names": json.dumps(names, sort_keys=True)})


def load_scores(path: Path) -> ClipScores:
    """Inverse of `save_scores`.

    Raises:
        DataError: the file is not one of ours.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = {k: json.loads(v) for k, v in json.loads(file.metadata()["names"]).items()}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        columns: dict[str, Any] = {
            **tensors,
            **{name: np.array(names[name], dtype=np.str_) for name in _TEXT},
        }
        return ClipScores(reasons=tuple(names["reasons"]), **columns)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as err:
        raise DataError(f"{path} does not hold clip scores ({err}): run the scoring stage again") from None
