"""Whole networks: latency of one image, images per second of many, beside PyTorch and onnxruntime on the same GPU.

Every runtime is given images that lie on the GPU, in turns from several batches, and leaves the logits there. Their
logits are compared with ours before they are timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from npmobilenet.architectures import Architecture, get_architecture, random_weights
from npmobilenet.bench.cuda import onnx_networks, timing, torch_networks
from npmobilenet.bench.cuda.correctness import NETWORK, TINY, error
from npmobilenet.bench.peers.folded import folded_layers
from npmobilenet.checkpoints.fit import fit
from npmobilenet.counts import count
from npmobilenet.cuda.arrays import DeviceArray
from npmobilenet.engine import Engine
from npmobilenet.graph import Graph
from npmobilenet.weights import CATALOGUE

BATCHES = (1, 32, 256)
SIZE = 224
TOLERANCE = {**NETWORK, "tf32": 1e-2}
OURS = "npmobilenet"


class Case:
    """One network at one batch size, with its images and what the logits must be."""

    def __init__(self, name: str, batch: int, smoke: bool = False) -> None:
        self.name, self.batch = TINY.name if smoke else name, batch
        side = 8 if smoke else SIZE
        self.graph, self.weights = _weights(TINY if smoke else get_architecture(name))
        self.size = (side, side)
        sets = 2 if smoke else min(8, timing.sets_for(batch * 3 * side * side * 4))
        random = np.random.default_rng(0)
        self.images = [random.standard_normal((batch, 3, side, side), np.float32) for _ in range(sets)]
        self.expected: np.ndarray | None = None
        self.macs = count(self.graph, self.size).macs

    @property
    def layers(self) -> list:
        """For the exporters."""
        return folded_layers(self.graph, self.weights, self.size)

    def row(
        self,
        runtime: str,
        dtype: str,
        run: Callable[[Any], Any],
        send: Callable[[np.ndarray], Any],
        fetch: Callable[[Any], np.ndarray],
        wait: Callable[[], None],
        tolerance: str = "",
    ) -> dict:
        """Compare a runtime's logits with the first one's, then measure it."""
        inputs = [send(x) for x in self.images]
        logits = np.asarray(fetch(run(inputs[0])), np.float32)
        if self.expected is None:
            self.expected = logits
        wrong = error(logits, self.expected)
        row = {"network": self.name, "batch": self.batch, "runtime": runtime, "dtype": dtype, "difference": wrong}
        if not wrong <= TOLERANCE[tolerance or dtype]:
            return row | {"failed": f"its logits differ by {wrong:.1e} of the largest: not measured"}

        def call(number: int) -> None:
            run(inputs[number % len(inputs)])

        seconds = timing.seconds_per_call(call, wait, max(2, 128 // self.batch))
        row |= {"milliseconds": 1e3 * seconds, "images_per_second": self.batch / seconds}
        row["tflops"] = 2 * self.macs * self.batch / seconds / 1e12
        row["latency_milliseconds"] = 1e3 * timing.latency(call, wait, max(10, 200 // self.batch))
        return row


def _weights(architecture: Architecture) -> tuple[Graph, Mapping[str, np.ndarray]]:
    """The shipped ones, else random ones."""
    entry = CATALOGUE.get(architecture.name)
    if entry is None:
        graph = architecture.graph(num_classes=10 if architecture is TINY else 1000)
        return graph, random_weights(graph)
    info = entry.info()
    fitted = fit(entry.read().tensors, padding=info.padding, bn_eps=info.bn_eps)
    return fitted.graph, fitted.weights


def ours(case: Case, dtype: str) -> dict:
    """This package."""
    engine = Engine(case.graph, case.weights, "cuda", dtype)
    send = partial(_on_device, dtype=np.float32)
    return case.row(OURS, dtype, engine.run, send, np.asarray, timing.synchronize)


def host_arrays(case: Case) -> dict:
    """This package, from NumPy arrays to NumPy arrays: with both transfers."""
    engine = Engine(case.graph, case.weights, "cuda")
    return case.row(f"{OURS}, from and to the host", "float32", engine.run, np.asarray, np.asarray, timing.synchronize)


def peers(case: Case, compiled: bool) -> Iterator[Callable[[], dict]]:
    """Every other runtime, as a function that measures it: one that fails spoils no other.

    With ``compiled`` those of torch.compile, which take long to start: with CUDA graphs for the latency of one image,
    without where there is enough to do.
    """

    def in_torch(runtime: str, dtype: str, channels_last: bool, options: dict | None, tf32: bool) -> dict:
        import torch

        if not torch.cuda.is_available():
            raise ImportError("PyTorch sees no GPU")
        run, send = torch_networks.prepared(case.layers, dtype, channels_last, options, tf32)
        fetch, wait = (lambda y: y.float().cpu().numpy()), torch.cuda.synchronize
        return case.row(runtime, dtype, run, send, fetch, wait, "tf32" if tf32 else "")

    def in_onnxruntime() -> dict:
        shape = case.images[0].shape
        run = onnx_networks.prepared(case.graph, case.weights, shape)
        send = partial(_on_device, dtype=np.float32)
        return case.row("onnxruntime CUDA", "float32", run, send, np.asarray, timing.synchronize)

    for variant in torch_networks.VARIANTS:
        options, graphs = variant[3], variant[3] == torch_networks.CUDA_GRAPHS
        if (options is not None and graphs == (case.batch == 1)) if compiled else options is None:
            yield partial(in_torch, *variant)
    if not compiled:
        yield in_onnxruntime


def layer_times(name: str, batch: int, dtype: str = "float32", smoke: bool = False) -> Iterator[dict]:
    """How long each launch of a network takes, one after the other: where the time goes."""
    case = Case(name, batch, smoke)
    plan = Engine(case.graph, case.weights, "cuda", dtype).plan(case.size, None, batch)
    for tensor, seconds in plan.time_steps(1 if smoke else 10).items():
        yield {"network": name, "batch": batch, "dtype": dtype, "layer": tensor, "microseconds": 1e6 * seconds}


def _on_device(x: np.ndarray, dtype: type) -> DeviceArray:
    y = DeviceArray.empty(x.shape, np.dtype(dtype))
    y.flat.copy_to_device(np.ascontiguousarray(x, dtype).reshape(-1))
    return y
