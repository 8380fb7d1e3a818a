"""What networks compute where neither Numba nor llvmlite can be imported, and where everything is compiled.

``python -m tests.kernels.without_compilers`` runs the package's networks both ways, in two processes, and compares the
bits; with names it runs those alone. Where something would have to be compiled it says what.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from hashlib import sha256

WITH_WEIGHTS = (
    *("mobilenet_v2", "mobilenet_v1", "ssdlite_mobilenet_v2_person", "ssd_mobilenet_v1_face"),
    *("face_expression", "tiny_face_detector", "selfie_segmentation"),
)
SEEDED = {
    **dict.fromkeys(("mobilenet_v3_large", "mobilenet_v3_small", "mixnet_s", "mixnet_m", "mixnet_l"), 224),
    **dict.fromkeys(("efficientnet_b0", "efficientnet_lite0", "mnasnet_b1"), 224),
    **dict.fromkeys(("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "deeplabv3_mobilenet_v2_aspp"), 256),
    **dict.fromkeys(("ssdlite_mobilenet_v3_large", "ssdlite_mobilenet_v2", "ssdlite_mobilenet_v1"), 320),
}
INT8 = (*WITH_WEIGHTS, "mobilenet_v3_small", "mixnet_s", "efficientnet_lite0", "mnasnet_b1")
CASES = (*WITH_WEIGHTS, *SEEDED, *(f"{name} int8" for name in INT8))


def outputs(case: str, small: bool = False) -> Iterator[bytes]:
    """All that a network computes of one image, on one thread and on two."""
    import numpy as np

    import npmobilenet
    from npmobilenet.architectures import get_architecture, random_weights

    name, _, dtype = case.partition(" ")
    if name in SEEDED:
        size = (SEEDED[name],) * 2
        graph = get_architecture(name).graph(0.35 if small else 1.0)
        model = npmobilenet.Model(graph, random_weights(graph, 1), architecture=name)
    else:
        model = npmobilenet.load(name)
        size = model.preprocessing.crop
    if dtype:
        model = npmobilenet.quantize(model)
    if small:
        size = tuple(32 * (side // 96) for side in size)
    x = np.random.default_rng(0).random((1, model.graph.in_channels, *size), np.float32)
    for threads in (1, 2):
        yield from (array.tobytes() for array in model.run({model.input_name: x}, threads=threads).values())
    if name in WITH_WEIGHTS:
        yield model.preprocess(np.random.default_rng(1).integers(0, 256, (61, 83, 3), np.uint8)).tobytes()


def main(mode: str, *cases: str) -> None:
    """Print of each case a hash of what it computes, and where all machine code has come from so far."""
    if mode.startswith("without"):
        sys.modules |= dict.fromkeys(("numba", "llvmlite"))
    from npmobilenet.kernels.compilers import NoCompilerError
    from npmobilenet.kernels.vector import lookup

    warnings.simplefilter("ignore")
    for case in cases:
        digest = sha256()
        try:
            for content in outputs(case, small=mode.endswith("small")):
                digest.update(content)
            result = digest.hexdigest()
        except NoCompilerError as error:
            result = f"not served: {error}"
        origins = sorted({served.functions.origin for served in lookup.served.values()})
        print(json.dumps([case, result, origins]), flush=True)


def compare(cases: tuple[str, ...]) -> int:
    """Run networks both ways; return how many have other bits."""

    def run(mode: str, setting: str) -> list[list]:
        command = [sys.executable, "-m", "tests.kernels.without_compilers", mode, *cases]
        settings = {**os.environ, "NPMOBILENET_SHIPPED_KERNELS": setting}
        return [json.loads(line) for line in subprocess.check_output(command, env=settings, text=True).splitlines()]

    differ = 0
    for (case, result, origins), (_, expected, _) in zip(run("without", "1"), run("compiled", "0"), strict=True):
        other = result != expected and not result.startswith("not served")
        differ += other
        verdict = "OTHER BITS" if other else "the same bits" if result == expected else result
        print(f"{case:<34} {verdict}; {', '.join(origins)}")
    return differ


if __name__ == "__main__":
    given = sys.argv[1:]
    if given and given[0].partition("-")[0] in ("without", "compiled"):
        main(*given)
    else:
        sys.exit(compare(tuple(given) or CASES))
