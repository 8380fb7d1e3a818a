"""How much memory a process takes while it computes one image; run in a process of its own (`memory`).

python -m npmobilenet.bench.study.peak NETWORK WIDTH SIZE LOWERING
"""

from __future__ import annotations

import subprocess
import sys
from os import environ, pathsep
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # written to clear_refs: the peak is from now on (Linux, proc(5))


def measure(network: str, width: float, size: int, lowering: str) -> int | None:
    """Return the bytes by which a new process grows while it computes an image, or None where it cannot tell.

    Its weights are packed and its kernels run on a small image before; then it plans for the size and runs once.
    """
    if not _RESET.exists():
        return None
    # Arrays come straight from the system, so that none finds room in what another left behind.
    settings = {"MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", __name__, network, str(width), str(size), lowering]
    result = subprocess.run(command, capture_output=True, text=True, env={**environ, **settings})
    try:
        return int(result.stdout)
    except ValueError:
        return None


def _main(network: str, width: str, size: str, lowering: str) -> None:
    import numpy as np

    from npmobilenet.architectures import get_architecture, random_weights
    from npmobilenet.blocked.program import BlockedProgram
    from npmobilenet.plan import Program

    graph = get_architecture(network).graph(float(width))
    weights = random_weights(graph)
    if lowering in ("plain", "reference"):
        make = Program(graph, weights, lowering).plan
    else:
        program = BlockedProgram(graph, weights)

        def make(size: tuple[int, int]) -> object:
            return program.plan(size, fused=lowering == "blocks")

    make((64, 64)).run(np.zeros((graph.in_channels, 64, 64), np.float32))
    image = np.ones((graph.in_channels, int(size), int(size)), np.float32)
    _RESET.write_text(_RESET_PEAK)
    before = _status("VmRSS")
    make((int(size), int(size))).run(image)
    print(_status("VmHWM") - before)


def _status(field: str) -> int:
    """A size of this process, in bytes."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise LookupError(field)


if __name__ == "__main__":
    _main(*sys.argv[1:])
