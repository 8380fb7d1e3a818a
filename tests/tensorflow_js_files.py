"""Manifests of TensorFlow.js with their bytes; `npmobilenet.checkpoints.tensorflow_js` has the format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

Node = tuple[str, str, list[str]]  # name, operation, inputs


def manifest(
    weights: Mapping[str, np.ndarray | tuple[np.ndarray, tuple]], nodes: Sequence[Node] | None = None
) -> dict[str, bytes]:
    """The files of arrays, of integers each with (scale, min); with a graph of operations, or without."""
    entries, content = [], b""
    for path, values in weights.items():
        values, about = values if isinstance(values, tuple) else (values, None)
        entry = {"name": path, "shape": list(values.shape), "dtype": "float32"}
        if values.dtype == np.int32:
            entry["dtype"] = "int32"
        if values.dtype == np.float16:
            entry["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
        if about:
            entry["quantization"] = {"dtype": values.dtype.name, "scale": about[0], "min": about[1]}
        entries.append(entry)
        content += values.tobytes()
    found: list | dict = [{"paths": ["weights.1.bin", "weights.2.bin"], "weights": entries}]
    if nodes is not None:
        graph = [{"name": name, "op": operation, "input": inputs} for name, operation, inputs in nodes]
        found = {"modelTopology": {"node": graph}, "weightsManifest": found}
    return {"model.json": json.dumps(found).encode(), "weights.1.bin": content[:5], "weights.2.bin": content[5:]}
