"""The command ``python -m npmobilenet.bench.stream``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import npmobilenet
from npmobilenet.bench.stream.cost import Cost, measured
from npmobilenet.bench.stream.photographs import SIZES, photograph
from npmobilenet.machine import available_cpus, cpu_name
from npmobilenet.text import columns

MOST_LINKS = 50_000  # to one file; file systems have a limit
PEER = Path(__file__).with_name("torch_loader.py")
SAMPLES = (0.01, *(tenths / 10 for tenths in range(1, 11)))  # of all images, when memory is looked at
TABLES = ("csv", "jsonl", "parquet")


def linked(path: Path, count: int, folder: Path) -> Path:
    """Have so many names for a file; return a list of them."""
    folder.mkdir()
    names = [folder / f"{index:07}{path.suffix}" for index in range(count)]
    for index, name in enumerate(names):
        if index % MOST_LINKS == 0:
            shutil.copy(path, name)
        else:
            os.link(names[index // MOST_LINKS * MOST_LINKS], name)
    made = folder.with_suffix(".txt")
    made.write_text("".join(f"{name}\n" for name in names))
    return made


def once(names: Path) -> dict:
    """Stream a list of files once, when all is loaded: the other script, too, computes once before it starts."""
    model = npmobilenet.load()
    for _ in npmobilenet.stream(names.read_text().split("\n", 1)[0], model, task="classify"):
        pass
    start, cpu = time.perf_counter(), time.process_time()
    images = sum(len(batch.names) for batch in npmobilenet.stream(f"@{names}", model, task="classify"))
    return {"images": images, "seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def _output(*command: object) -> dict:
    done = subprocess.run([sys.executable, "-W", "ignore", *map(str, command)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _settings(cpus: int) -> list[tuple[int, int]]:
    """(workers, threads) of the DataLoader and of onnxruntime: the best counts."""
    return sorted({(1, cpus), (cpus, 1), (cpus, cpus), (cpus + 1, 1), (cpus + 1, cpus)})


def compare(pixels: tuple[int, int], options: argparse.Namespace, folder: Path) -> Iterator[list[str]]:
    """Measure photographs of a size; yield rows of a table."""
    file = photograph(pixels, folder / f"{pixels[0]}x{pixels[1]}.jpg")
    names = linked(file, options.images, folder / f"set{pixels[0]}")
    cpus = available_cpus()
    settings = _settings(cpus) if options.peer else []
    network = folder / "network.onnx"
    if settings and not network.exists():
        npmobilenet.export_onnx(npmobilenet.load(), network)
    mine: list[dict] = []
    others: dict[tuple[int, int], list[dict]] = {setting: [] for setting in settings}
    costs: list[Cost] = []
    for _ in range(options.rounds):
        costs.append(measured(file))
        mine.append(_output("-m", "npmobilenet.bench.stream", "--once", names))
        for workers, threads in settings:
            arguments = ("--workers", workers, "--threads", threads)
            others[workers, threads].append(_output(PEER, names, network, *arguments))
    cost = Cost.least(costs)
    allowed = cpus / cost.total
    rate = _rate(mine)
    title = f"{pixels[0]}x{pixels[1]}"
    parts = f"{1e3 * cost.decoding:.2f} + {1e3 * cost.resizing:.2f} + {1e3 * cost.network:.2f} ms"
    yield [title, "CPU time allows", f"{allowed:.1f}", parts]
    yield [title, "npmobilenet.stream", f"{rate:.1f}", f"{rate / allowed:.2f} of that"]
    for (workers, threads), runs in sorted(others.items(), key=lambda item: -_rate(item[1])):
        what = f"DataLoader, {workers} workers; onnxruntime, {threads} threads"
        yield [title, what, f"{_rate(runs):.1f}", f"stream: {rate / _rate(runs):.2f} times as many"]


def _rate(runs: Sequence[dict]) -> float:
    """Of the fastest run: whatever else a machine does makes others slower."""
    return max(run["images"] / run["seconds"] for run in runs)


def memory(options: argparse.Namespace, folder: Path) -> Iterator[list[str]]:
    """Classify very many small files with a small network, and look at how much memory that takes."""
    from npmobilenet.architectures import get_architecture, random_weights

    preprocessing = npmobilenet.Preprocessing(None, (96, 96), None, (0.5,) * 3, (0.5,) * 3)
    graph = get_architecture("mobilenet_v2").graph(0.35, 1000)
    weights = npmobilenet.export_weights(
        random_weights(graph), folder / "small.npz", metadata={"preprocessing": preprocessing.to_dict()}
    )
    linked(photograph((128, 96), folder / "small.jpg"), options.memory, folder / "set")
    out = folder / f"out.{options.table}"
    command = ["-m", "npmobilenet", "classify", folder / "set", "--model", weights, "--out", out]
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.DEVNULL) as process:
        largest, shown = 0, 0
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text().split("VmRSS:")
            largest = max(largest, int(status[1].split()[0]) if len(status) > 1 else 0)
            done = _done(out.with_name(f"{out.name}.parts"))
            if shown < len(SAMPLES) and done >= SAMPLES[shown] * options.memory:
                shown += 1
                yield [str(done), f"{largest / 1024:.0f} MB", f"{done / (time.perf_counter() - start):.0f}"]
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"ended with the exit code {process.returncode}")
    yield [
        f"{_images_in(out)} in the table",
        f"{largest / 1024:.0f} MB",
        f"{options.memory / (time.perf_counter() - start):.0f}",
    ]


def _images_in(table: Path) -> int:
    """How many images a table has rows of."""
    if table.suffix == ".parquet":
        import pyarrow.parquet

        return len(pyarrow.parquet.read_table(table, columns=["image"])["image"].unique())
    with table.open() as file:
        return len({line.split(",", 1)[0] for line in file}) - (table.suffix == ".csv")


def _done(parts: Path) -> int:
    """How many images are in the last part."""
    import zipfile

    try:
        last = max(parts.glob("*.part"))
        with zipfile.ZipFile(last) as archive:
            return json.loads(archive.read("about"))["images"]
    except (ValueError, OSError, zipfile.BadZipFile):  # there is none, or it has just gone
        return 0


def _size(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    return width, height


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m npmobilenet.bench.stream",
        description="Images a second from file to five classes, beside what CPU time allows and beside PyTorch's "
        "DataLoader with onnxruntime. All images of a size are the same file under many names.",
    )
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="of each size (default: %(default)s)")
    parser.add_argument(
        "--size", type=_size, action="append", metavar="WxH", help="of photographs (default: 500x375 and 4000x3000)"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of all in turn (default: %(default)s)")
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="npmobilenet alone")
    parser.add_argument("--memory", type=int, metavar="N", help="the memory of a run over N images instead")
    parser.add_argument(
        "--table", choices=TABLES, default="csv", help="the kind of file that --memory writes (default: %(default)s)"
    )
    parser.add_argument("--once", type=Path, metavar="LIST", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.once:
        print(json.dumps(once(options.once)))
        return 0
    if options.peer and not options.memory and not all(map(find_spec, ("torch", "torchvision", "onnxruntime"))):
        print("without the peer: torch, torchvision and onnxruntime are not all installed", file=sys.stderr)
        options.peer = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.memory:
            rows = [["images", "largest resident memory", "images/s"], *memory(options, folder)]
        else:
            rows = [["photographs", "", "images/s", ""]]
            for wanted in options.size or SIZES:
                rows += compare(wanted, options, folder)
    print(f"{cpu_name()}, {available_cpus()} CPUs")
    print("\n".join(columns(rows, 2)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
