"""``npmobilenet warmup``: compile now what would otherwise be compiled at the first inference."""

from __future__ import annotations

import argparse
import time


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    return commands.add_parser("warmup", help="compile the kernels for this CPU and keep them in the cache folder")


def run(options: argparse.Namespace) -> int:
    """Run a small network of each family, so that every kernel they need is compiled and kept."""
    import numpy as np

    from npmobilenet.architectures import get_architecture, random_weights
    from npmobilenet.engine import Engine
    from npmobilenet.image import IMAGENET, preprocess
    from npmobilenet.kernels.cache import kernel_cache

    start = time.perf_counter()
    x = preprocess(np.zeros((300, 400, 3), np.uint8), IMAGENET)[None]
    for name in ("mobilenet_v2", "mobilenet_v1"):
        graph = get_architecture(name).graph(0.25)
        Engine(graph, random_weights(graph), "cpu").run(x)
    folder = kernel_cache()
    where = f"in {folder}" if folder else "nowhere: no folder can be written, every process compiles anew"
    print(f"compiled and kept {where} ({time.perf_counter() - start:.1f} s)")
    return 0
