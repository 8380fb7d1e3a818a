"""``npmobilenet warmup``: compile now what would otherwise be compiled at the first inference."""

from __future__ import annotations

import argparse
import time
from collections import Counter

# Together these have every window of a depthwise convolution; scaled networks have no others.
WINDOWS = ("mobilenet_v2", "mobilenet_v3_small", "mnasnet_b1", "mixnet_s", "mixnet_m", "mixnet_l")
# Networks of 8 bits have a library for each activation that results end with, and one for each window of the image.
OF_INT8 = ("lraspp_mobilenet_v3_large", "mobilenet_v2_stages")


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = commands.add_parser("warmup", help="compile the kernels for this CPU and keep them in the cache folder")
    parser.add_argument(
        "--dtype", choices=("float32", "int8"), default="float32", help="of the networks (default: %(default)s)"
    )
    return parser


def networks(dtype: str) -> tuple[str, ...]:
    """Return the networks that need every kernel of this type."""
    return WINDOWS + OF_INT8 * (dtype == "int8")


def run(options: argparse.Namespace) -> int:
    """Run networks that need every kernel, so that all that is not shipped is compiled and kept."""
    import numpy as np

    from npmobilenet.architectures import get_architecture, random_weights
    from npmobilenet.engine import Engine
    from npmobilenet.image import IMAGENET, preprocess
    from npmobilenet.kernels.cache import place
    from npmobilenet.kernels.vector import lookup
    from npmobilenet.quantisation import quantised

    start = time.perf_counter()
    x = preprocess(np.zeros((300, 400, 3), np.uint8), IMAGENET)[None]
    for name in networks(options.dtype):
        graph = get_architecture(name).graph()
        weights = random_weights(graph)
        if options.dtype == "int8":
            made = quantised(graph, weights, IMAGENET)
            graph, weights = made.graph, made.weights
        Engine(graph, weights, dtype=options.dtype).run(x)
    seconds = time.perf_counter() - start
    origins = Counter(served.functions.origin for served in lookup.served.values())
    libraries = ", ".join(f"{number} {origin}" for origin, number in sorted(origins.items()))
    where = ""
    if any(origin.startswith("compiled") for origin in origins):
        kept = place()
        where = f", kept in {kept.folder}" if kept.folder else ", not kept"
        where += f", {kept.why}" if kept.why else ""
    print(f"libraries: {libraries}{where} ({seconds:.1f} s)")
    return 0
