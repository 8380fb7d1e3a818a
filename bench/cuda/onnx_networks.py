"""A network in onnxruntime on the GPU, where onnxruntime can use it; images and logits stay there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from npmobilenet.bench.peers.networks import onnx_bytes
from npmobilenet.cuda.arrays import DeviceArray
from npmobilenet.graph import INPUT, Graph

PROVIDER = "CUDAExecutionProvider"


def prepared(
    graph: Graph, weights: Mapping[str, np.ndarray], shape: tuple[int, ...]
) -> Callable[[DeviceArray], DeviceArray]:
    """Return a function from images on the GPU to logits there.

    Raises
    ------
    ImportError
        If onnxruntime is missing, or onnxruntime was built without CUDA.
    """
    import onnxruntime

    if PROVIDER not in onnxruntime.get_available_providers():
        raise ImportError(f"this onnxruntime has no {PROVIDER}")
    options = {"use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"}
    session = onnxruntime.InferenceSession(onnx_bytes(graph, weights, shape), providers=[(PROVIDER, options)])
    if PROVIDER not in session.get_providers():
        raise ImportError(f"onnxruntime cannot start its {PROVIDER}")
    (output,) = graph.output_names
    logits = DeviceArray.empty((shape[0], graph.nodes[-1]["channels"]), np.dtype(np.float32))

    def run(x: DeviceArray) -> DeviceArray:
        binding: Any = session.io_binding()
        binding.bind_input(INPUT, "cuda", 0, np.float32, x.shape, x.pointer)
        binding.bind_output(output, "cuda", 0, np.float32, logits.shape, logits.pointer)
        session.run_with_iobinding(binding)
        return logits

    return run
