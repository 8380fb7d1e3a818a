"""From the start of a process to the first label, beside `import numpy` and other runtimes.

    python -m npmobilenet.bench.start
    python -m npmobilenet.bench.start --rounds 25 --write-docs

Each process is a fresh one, in turns, with all files in the system's cache: a pack of the shipped network, this very
installation, and the same network in those other runtimes that are installed, as they start by default. These are
given an array that is ready to be computed; ours begins with a photograph, of which it has to make one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

import npmobilenet
from npmobilenet.bench import documents, fresh
from npmobilenet.bench.machine import package_version
from npmobilenet.bench.peers.networks import Network
from npmobilenet.bench.runtimes import RUNTIMES
from npmobilenet.machine import available_cpus, cpu_name
from npmobilenet.packing.folder import pack
from npmobilenet.text import plural

REGION = "bench/start.py"
NETWORK = "mobilenet_v2"
NUMPY = "`import numpy`"
SIZE = (400, 600)  # of the photograph
OURS = "import npmobilenet, numpy; print(npmobilenet.load().classify(numpy.load({!r}))[0].label)"
PEERS = {
    "onnxruntime": """
import numpy, onnxruntime
session = onnxruntime.InferenceSession({file!r}, providers=["CPUExecutionProvider"])
print(session.run(None, {{"input": numpy.load({x!r})}})[0].argmax())
""",
    "litert": """
import numpy
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter({file!r})
interpreter.allocate_tensors()
(source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
interpreter.set_tensor(source["index"], numpy.ascontiguousarray(numpy.load({x!r}).transpose(0, 2, 3, 1)))
interpreter.invoke()
print(interpreter.get_tensor(result["index"]).argmax())
""",
    "openvino": """
import numpy, openvino
print(openvino.Core().compile_model({file!r}, "CPU")([numpy.load({x!r})])[0].argmax())
""",
}


def commands(folder: Path) -> dict[str, list[str]]:
    """What is measured: a name, and a command line. Files go into the folder."""
    python = sys.executable
    picture = _picture()
    array, photograph = folder / "photograph.npy", folder / "photograph.jpg"
    np.save(array, picture)
    found = {NUMPY: [python, "-c", "import numpy"]}
    for dtype in ("float32", "int8"):
        model = npmobilenet.load(NETWORK, dtype=dtype)
        out = folder / f"packed-{dtype}"
        pack([model], out)
        found[f"pack, {dtype}, array"] = [python, str(out), str(array)]
    found["installed, `load()` and `classify`, array"] = [python, "-c", OURS.format(str(array))]
    found["installed, the command, array"] = [python, "-m", "npmobilenet", "classify", str(array)]
    try:
        from PIL import Image
    except ImportError:
        pass
    else:
        Image.fromarray(picture).save(photograph, quality=90)
        found["pack, float32, JPEG"] = [python, str(folder / "packed-float32"), str(photograph)]
        found["installed, the command, JPEG"] = [python, "-m", "npmobilenet", "classify", str(photograph)]
    network = Network.parse(f"{NETWORK}-1.0-224", folder)
    x = network.input(1)
    for name, program in PEERS.items():
        about = RUNTIMES[name]
        if version := package_version(about.package):
            file = str(network.file(about.suffix, 1))
            found[f"{name} {version}, array"] = [python, "-c", program.format(file=file, x=str(x))]
    return found


def _picture() -> np.ndarray:
    """Something like a photograph, which is no larger a JPEG file than one."""
    noise = np.random.default_rng(0).integers(0, 256, (*(side // 8 for side in SIZE), 3), np.uint8)
    return noise.repeat(8, axis=0).repeat(8, axis=1)


def measured(rounds: int) -> dict[str, dict]:
    """Run every command, and some before they count."""
    # Installed packages have their bytecode beside them; a checkout's is kept as well, whatever the setting.
    search = os.pathsep.join(filter(None, [str(Path(npmobilenet.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": search}
    with TemporaryDirectory() as folder:
        task = json.dumps({"commands": commands(Path(folder)), "rounds": rounds})
        done = subprocess.run(
            [sys.executable, "-S", fresh.__file__, task], stdout=subprocess.PIPE, text=True, env=environment, check=True
        )
    return json.loads(done.stdout)


def table(found: dict[str, dict]) -> Iterator[str]:
    """What was found, as lines of a document."""
    base = found[NUMPY]["seconds"]
    yield "| | ms: median / least | above `import numpy` | MB at most |"
    yield "| --- | --- | --- | --- |"
    for name, each in found.items():
        seconds = each["seconds"]
        # Of the same round, in which the machine was as busy with other things.
        above = median(one - other for one, other in zip(seconds, base, strict=True))
        least = min(seconds) - min(base)
        beyond = "" if name == NUMPY else f"{1e3 * above:.0f} / {1e3 * least:.0f}"
        times = f"{1e3 * median(seconds):.0f} / {1e3 * min(seconds):.0f}"
        yield f"| {name} | {times} | {beyond} | {max(each['bytes']) / 1e6:.0f} |"


def main() -> int:
    """Measure, and print the table or write it into the document."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__spec__.name}", description=__doc__.partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=11, metavar="N", help="of every process (default %(default)s)")
    parser.add_argument("--write-docs", action="store_true", help="write the table into docs/deploy.md")
    options = parser.parse_args()
    python, numpy = platform.python_version(), np.__version__
    machine = f"{cpu_name()}, {plural(available_cpus(), 'CPU')}; Python {python}, NumPy {numpy}"
    rounds = plural(options.rounds, "round")
    lines = [f"{machine}; {rounds}.", "", *table(measured(options.rounds))]
    print("\n".join(lines))
    if options.write_docs:
        print(*documents.fill({REGION: lines}), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
