"""A runtime in a process of its own: loads a network, runs it once, then runs bursts when told to.

This file is run as a script, and imports nothing before it is needed, so that what a runtime's start costs can
be seen from outside. It is told what to do by a JSON object as its argument (:func:`serve`), answers with a line
of JSON, and then runs a burst for every line it reads, a number of seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

Run = Callable[[], Any]  # returns an array; NumPy is imported by those who need it


@dataclass(frozen=True)
class Runtime:
    """Something that runs networks.

    Attributes
    ----------
    package : str
        Its name for pip.
    suffix : str
        The kind of file it loads.
    load : callable
        ``load(file, x, threads)`` returns a function that computes the outputs of ``x`` (N, C, H, W), a list of
        arrays. What can be done with ``x`` once, such as bringing it into the runtime's own layout, is done before.
    int8 : str
        The kind of file that a network of 8 bits is in; empty if none is made for it (`peers.int8`).
    """

    package: str
    suffix: str
    load: Callable[..., Run]
    int8: str = ""
    channels_last: bool = False
    """Whether images that it computes are (N, H, W, C)."""


def load_npmobilenet(file: str, x, threads: int) -> Run:
    import npmobilenet

    model = npmobilenet.load(file)
    names = model.graph.output_names
    if names == ("logits",):
        return lambda: [model(x, threads=threads)]
    return lambda: list(model.outputs(x, names, threads=threads).values())


def load_onnxruntime(file: str, x, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"input": x})


def load_openvino(file: str, x, threads: int) -> Run:
    import openvino

    options = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(file, "CPU", options).create_infer_request()
    return lambda: list(request.infer([x], share_inputs=True, share_outputs=True).values())


def load_litert(file: str, x, threads: int) -> Run:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(file, num_threads=threads)  # with XNNPACK, its default
    interpreter.allocate_tensors()
    (source,), results = interpreter.get_input_details(), interpreter.get_output_details()
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))

    def run():
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()
        return [interpreter.get_tensor(result["index"]) for result in results]

    return run


def load_torch(file: str, x, threads: int, *, channels_last: bool = False, compiled: bool = False) -> Run:
    import torch
    from torch.nn import functional as f

    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:  # it can be said once
        torch.set_num_interop_threads(1)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    activations = {
        "relu": partial(f.relu, inplace=True),
        "relu6": partial(f.relu6, inplace=True),
        "swish": partial(f.silu, inplace=True),
        "hard_swish": partial(f.hardswish, inplace=True),
        "sigmoid": torch.sigmoid_,
        "hard_sigmoid": partial(f.hardsigmoid, inplace=True),
    }
    layers, outputs = torch.load(file, weights_only=True)
    x = torch.from_numpy(x).to(memory_format=layout)
    last_reader = {name: layer["name"] for layer in layers for name in layer["inputs"]}
    for layer in layers:
        if layer["kind"] == "convolution":
            layer["weight"] = layer["weight"].to(memory_format=layout)

    def convolution(layer: dict, y):
        (top, bottom), (left, right) = layer["pads"]
        pads = (top, left)
        if (top, left) != (bottom, right):  # conv2d itself pads alike on both sides
            y, pads = f.pad(y, (left, right, top, bottom)), 0
        return f.conv2d(y, layer["weight"], layer["bias"], layer["stride"], pads, layer["dilation"], layer["groups"])

    def in_place(layer: dict) -> bool:
        first = layer["inputs"][0]
        return last_reader[first] == layer["name"] and first not in ("input", *outputs)

    def activated(layer: dict, y):
        if layer["activation"] == "leaky_relu":
            return f.leaky_relu(y, layer["slope"], inplace=True)
        return activations[layer["activation"]](y)

    def max_pool(layer: dict, y):
        (top, bottom), (left, right) = layer["pads"]
        pads = (top, left)
        if (top, left) != (bottom, right):
            y, pads = f.pad(y, (left, right, top, bottom), value=-torch.inf), 0
        return f.max_pool2d(y, layer["kernel"], layer["stride"], pads)

    def resize(layer: dict, y):
        if layer["mode"] == "nearest":
            return f.interpolate(y, layer["size"], mode="nearest")
        corners = layer["coordinates"] == "align_corners"
        if layer["coordinates"] == "asymmetric":
            raise ValueError(f"cannot be exported: {layer['name']}, bilinear between other places than PyTorch's")
        return f.interpolate(y, layer["size"], mode="bilinear", align_corners=corners)

    kinds = {
        "convolution": convolution,
        "transposed": lambda layer, y: f.conv_transpose2d(y, layer["weight"], layer["bias"], layer["stride"]),
        "max_pool": max_pool,
        "resize": resize,
        "activation": lambda layer, y: y if in_place(layer) else y.clone(),  # to be activated in place
        "prelu": lambda layer, y: torch.where(y > 0, y, y * layer["weight"]),
        "softmax": lambda layer, y: f.softmax(y, 1),
        "linear": lambda layer, y: f.linear(y, layer["weight"], layer["bias"]),
        "pool": lambda layer, y: y.mean((2, 3)),
        "squeeze": lambda layer, y: y.mean((2, 3), keepdim=True),
        "split": lambda layer, y: y.split(layer["parts"], 1),
        "concat": lambda layer, *parts: torch.cat(parts, 1),
        "add": lambda layer, y, other: y.add_(other) if in_place(layer) else y + other,
        "multiply": lambda layer, y, other: y.mul_(other) if in_place(layer) else y * other,
    }

    def forward(x):
        made = {"input": x}
        for layer in layers:
            y = kinds[layer["kind"]](layer, *(made[name] for name in layer["inputs"]))
            if layer["activation"]:
                y = activated(layer, y)
            for name in layer["inputs"]:
                if last_reader[name] == layer["name"] and name not in outputs:
                    made.pop(name, None)
            made.update(zip(layer["outputs"], y if layer["kind"] == "split" else (y,), strict=True))
        return [made[name] for name in outputs]

    if compiled:
        forward = torch.compile(forward)

    def run():
        with torch.inference_mode():
            return [y.numpy() for y in forward(x)]

    return run


RUNTIMES = {
    "npmobilenet": Runtime("npmobilenet", ".safetensors", load_npmobilenet, ".int8.safetensors"),
    "onnxruntime": Runtime("onnxruntime", ".onnx", load_onnxruntime, ".qdq.onnx"),
    "openvino": Runtime("openvino", ".onnx", load_openvino, ".int8.xml"),
    "litert": Runtime("ai-edge-litert", ".tflite", load_litert, ".int8.tflite", channels_last=True),
    "torch": Runtime("torch", ".pt", load_torch),
    "torch channels_last": Runtime("torch", ".pt", lambda *a: load_torch(*a, channels_last=True)),
    "torch compiled": Runtime("torch", ".pt", lambda *a: load_torch(*a, compiled=True)),
}

DROPPED, LEAST_CALLS = 3, 3  # calls of a burst that warm the caches up, and calls that count


def burst(run: Run, seconds: float) -> dict:
    """Run for some time; the first calls, for at most as long again, do not count."""
    start = time.perf_counter()
    for _ in range(DROPPED):
        run()
        if time.perf_counter() - start > seconds:
            break
    times = []
    start = now = time.perf_counter()
    while len(times) < LEAST_CALLS or now - start < seconds:
        run()
        before, now = now, time.perf_counter()
        times.append(now - before)
    times.sort()
    return {"median": times[len(times) // 2], "least": times[0], "calls": len(times)}


def together(outputs: list, channels_last: bool):
    """Return all values of each image's outputs: (N, values), of images channel by channel."""
    import numpy as np

    order = [y.transpose(0, 3, 1, 2) if channels_last and y.ndim == 4 else y for y in outputs]
    return np.concatenate([y.reshape(len(y), -1) for y in order], axis=1)


def rest() -> None:
    """Return once this process's threads sleep: many a runtime's spin for a while, to be ready for the next call.

    They would take CPUs from the runtime that is measured next.
    """
    for _ in range(100):
        before = time.process_time()
        time.sleep(0.01)
        if time.process_time() - before < 0.001:
            return


def one_line(error: Exception) -> str:
    """What an error says, shortened."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def peak_memory() -> int | None:
    """Return the most memory, in bytes, that this process has had so far; None where it cannot be known."""
    try:
        with open("/proc/self/status") as status:  # noqa: PTH123
            return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    # On Linux this counts what the parent had when it started this process, so it is the second choice.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def serve(task: dict) -> None:
    """Do what a task says.

    Its items: ``runtime`` (of :data:`RUNTIMES`), ``file``, ``input`` and ``output`` (``.npy`` files), ``threads``
    and ``cpus`` (those to stay on).
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a runtime prints is no answer

    def answer(**items: object) -> None:
        print(json.dumps(items), file=answers, flush=True)

    try:
        if task["cpus"] and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, task["cpus"])
        import numpy as np

        about = RUNTIMES[task["runtime"]]
        run = about.load(task["file"], np.load(task["input"]), task["threads"])
        result = run()
        answer(memory=peak_memory())  # the parent takes the time at this moment
        np.save(task["output"], together(result, about.channels_last))
        rest()
        answer(ready=True)
        for line in sys.stdin:
            times = burst(run, float(line))
            rest()
            answer(**times)
    except Exception as error:
        answer(error=one_line(error))


if __name__ == "__main__":
    del sys.path[0]  # this folder: its modules are no top-level ones
    serve(json.loads(sys.argv[1]))
