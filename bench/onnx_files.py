"""Networks of ONNX files, whoever wrote them, here and in onnxruntime, on one thread.

    python -m npmobilenet.bench.onnx_files FILE... [--document docs/onnx.md]

Of the package onnx there are some: ``.../onnx/backend/test/data/light/*.onnx``. With a document, the table between its
markers is written.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

import npmobilenet
from npmobilenet.bench import markers
from npmobilenet.bench.machine import cpu_name, package_version, vector_set
from npmobilenet.bench.profile import in_turns
from npmobilenet.bench.runtimes import burst
from npmobilenet.onnx.parts import Part
from npmobilenet.onnx_model import OnnxModel

REGION = "bench/onnx_files.py"
OPEN = (1, 3, 224, 224)  # lengths of an image that a file leaves open
ROUNDS = 5
SECONDS = 0.3  # of a burst


@dataclass(frozen=True)
class Row:
    """One file.

    Attributes
    ----------
    name : str
    milliseconds, theirs : float
        Of the fastest call of each round the median: here, and in onnxruntime.
    difference : float
        Of the largest output.
    computed : str
        As one graph, or in how many parts and nodes.
    """

    name: str
    milliseconds: float
    theirs: float
    difference: float
    computed: str

    def line(self) -> str:
        """The row of the table."""
        times = f"{self.milliseconds:.2f} | {self.theirs:.2f} | {self.milliseconds / self.theirs:.2f}"
        return f"| {self.name} | {times} | {self.difference:.0e} | {self.computed} |"


def compared(path: Path) -> Row:
    """Time a file here and in onnxruntime, in turn."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = npmobilenet.load(path, threads=1)
    random, inputs = np.random.default_rng(0), {}
    for port in session.get_inputs():
        shape = [size if isinstance(size, int) else usual for size, usual in zip(port.shape, OPEN, strict=False)]
        inputs[port.name] = random.standard_normal(shape).astype(np.float32)
    ours, theirs = list(model.run(inputs).values()), session.run(None, inputs)
    difference = max(float(np.abs(y - z).max() / np.abs(z).max()) for y, z in zip(ours, theirs, strict=True))
    runs = {"ours": lambda: model.run(inputs), "theirs": lambda: session.run(None, inputs)}
    found = in_turns({name: lambda run=run: burst(run, SECONDS)["least"] for name, run in runs.items()}, range(ROUNDS))
    times = [1000 * median(found[name]) for name in runs]
    return Row(path.stem, *times, difference, _computed(model, inputs))


def _computed(model: npmobilenet.Model, inputs: dict[str, np.ndarray]) -> str:
    if not isinstance(model, OnnxModel):
        return "one graph"
    steps = model._engine.sized({name: array.shape for name, array in inputs.items()}).steps
    parts = sum(isinstance(step, tuple) and isinstance(step[0], Part) for step in steps)
    return f"{parts} parts, {len(steps) - parts} nodes"


def table(rows: list[Row]) -> Iterator[str]:
    """Yield the lines of a document."""
    versions = f"npmobilenet {package_version('npmobilenet')}, onnxruntime {package_version('onnxruntime')}"
    yield f"{versions}, {cpu_name()}, {vector_set()}, one thread; milliseconds:"
    yield ""
    yield "| file | here | onnxruntime | ratio | difference, of the largest output | computed |"
    yield "| --- | --- | --- | --- | --- | --- |"
    yield from (row.line() for row in rows)


def main() -> None:
    """Measure the files of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--document", type=Path, metavar="FILE", help="write the table there")
    asked = parser.parse_args()
    rows = []
    for path in asked.files:
        rows.append(compared(path))
        print(rows[-1].line(), flush=True)
    if asked.document:
        markers.replace(asked.document, REGION, table(rows))


if __name__ == "__main__":
    sys.exit(main())
