"""The command ``python -m npmobilenet.bench.cuda``."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npmobilenet.bench.machine import commit, package_version
from npmobilenet.kernels.cuda import device

if TYPE_CHECKING:
    from npmobilenet.bench.cuda import networks

SECONDS = 450  # after which nothing new is begun
MORE_NETWORKS = ("mixnet_s", "mobilenet_v3_large", "efficientnet_b0")
COMPILED = (1, 256)  # batch sizes at which torch.compile, which takes long to start, is measured too
PACKAGES = ("npmobilenet", "numpy", "numba", "numba-cuda", "torch", "onnxruntime", "cupy-cuda13x", "triton")


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m npmobilenet.bench.cuda",
        description="The CUDA kernels on this machine's GPU: compared with their definitions, then measured, beside "
        "PyTorch and onnxruntime where these are installed.",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write cuda.json and cuda.md there")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="begin nothing new after (default %(default)s)")
    parser.add_argument("--parts", help="only these, such as kernels,depthwise")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: whether it runs, in the simulator too")
    parser.add_argument("--sanitizer", action="store_true", help="only run each kernel once, on small shapes")
    return parser


class Run:
    """The parts of a run: what they found, and what went wrong."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.smoke, self.out = options.smoke, options.out
        self.wanted = options.parts.split(",") if options.parts else None
        self.start, self.seconds = time.monotonic(), options.seconds
        self.found: dict[str, Any] = {"machine": machine(), "smoke": self.smoke, "notes": []}

    def note(self, text: str) -> None:
        """Say what is left out or fails, in the report too."""
        print(f"  {text}", flush=True)
        self.found["notes"].append(text)

    def part(self, name: str, title: str, rows: Callable[[], Iterable[dict]]) -> None:
        """Add what a part yields to the rows of ``name``, up to where it fails, if it does."""
        if self.wanted and name not in self.wanted:
            return
        spent = time.monotonic() - self.start
        if spent > self.seconds:
            self.note(f"{title}: left out, {self.seconds:.0f} s are over")
            return
        print(f"[{spent:.0f} s] {title}", flush=True)
        found = self.found.setdefault(name, [])
        try:
            for row in rows():
                found.append(row)
                self.save()
        except ImportError as error:
            self.note(f"{title}: left out, {error}")
        except Exception as error:  # whatever breaks, the rest is still worth having
            traceback.print_exc()
            self.note(f"{title}: FAILED, {type(error).__name__}: {' '.join(str(error).split())[:300]}")

    def save(self) -> None:
        """Write what there is so far."""
        from npmobilenet.bench.cuda import report

        if self.out:
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / "cuda.json").write_text(json.dumps(self.found, indent=1), encoding="utf-8")
            text = [*report.markdown(self.found), "", *report.launches(self.found), ""]
            (self.out / "cuda.md").write_text("\n".join(text), encoding="utf-8")


def machine() -> dict:
    """Describe the machine."""
    return {
        "device": device.status(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := package_version(name))},
        "commit": commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def measure(run: Run) -> None:
    """All parts, those first whose answers matter most."""
    from npmobilenet.bench.cuda import compiling, correctness, layers, networks, timing

    smoke = run.smoke
    if not smoke:
        run.part("compiling", "compiling", compiling.compile_all)
    run.part("kernels", "kernels against the reference", lambda: correctness.kernels(smoke))
    run.part("right_networks", "networks against the reference", lambda: correctness.networks(smoke))

    copy = 0.0

    def bandwidth() -> Iterator[dict]:
        nonlocal copy
        size = 1 << (12 if smoke else 30)
        copy = timing.copy_bandwidth(size, smoke)
        run.found["copy_gbytes"] = copy / 1e9
        yield {"bytes": size, "gbytes": copy / 1e9}

    run.part("copy", "copy", bandwidth)
    copy = copy or float("inf")
    run.part("depthwise", "depthwise layers", lambda: layers.depthwise_layers(copy, smoke=smoke))
    run.part("mixed", "mixed layers", lambda: layers.mixed_layers(copy, smoke=smoke))
    cases = compare(run, "mobilenet_v2", (1,) if smoke else networks.BATCHES)
    run.part("pointwise", "pointwise layers", lambda: layers.pointwise_layers(smoke=smoke))
    run.part("blocks", "inverted residuals", lambda: layers.blocks(smoke=smoke))
    batch = 2 if smoke else 256
    run.part("launches", "launches of mobilenet_v2", lambda: networks.layer_times("mobilenet_v2", batch, smoke=smoke))
    if not smoke:
        for case in cases:
            if case.batch in COMPILED:
                peers(run, case, compiled=True)
        half = "float16"
        run.part("depthwise", "depthwise layers in float16", lambda: layers.depthwise_layers(copy, half))
        run.part("mixed", "mixed layers in float16", lambda: layers.mixed_layers(copy, half))
        run.part("pointwise", "pointwise layers in float16", lambda: layers.pointwise_layers(half))
        for name in MORE_NETWORKS:
            compare(run, name, (1, 256))


def compare(run: Run, name: str, batches: Sequence[int]) -> list[networks.Case]:
    """A network in this package and in the other runtimes; returns what can be compared with more of them."""
    from npmobilenet.bench.cuda import networks

    cases = []

    def ours(batch: int) -> Iterator[dict]:
        case = networks.Case(name, batch, run.smoke)
        yield networks.ours(case, "float32")
        cases.append(case)
        yield networks.ours(case, "float16")
        yield networks.host_arrays(case)

    for batch in batches:
        run.part("networks", f"{name}, batch {batch}", partial(ours, batch))
    if not run.smoke:
        for case in cases:
            peers(run, case, compiled=False)
    return cases


def peers(run: Run, case: networks.Case, compiled: bool) -> None:
    """The other runtimes, each a part of its own."""
    from npmobilenet.bench.cuda import networks

    for peer in networks.peers(case, compiled):
        title = f"{case.name}, batch {case.batch}, another runtime" + ", compiled" * compiled
        run.part("networks", title, lambda peer=peer: [peer()])


def sanitizer() -> None:
    """Run each kernel once: what compute-sanitizer looks at."""
    from npmobilenet.bench.cuda import correctness, timing

    for row in correctness.kernels(smoke=True, sanitizer=True):
        print(f"{row['what']}, {row['dtype']}", flush=True)
    for row in correctness.networks(smoke=True):
        print(f"{row['what']}, {row['dtype']}: {'right' if row['right'] else 'WRONG'}", flush=True)
    timing.synchronize()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 1 if there is no device or an answer is wrong."""
    options = _options().parse_args(arguments)
    missing = device.problem()
    if missing:
        print(f"npmobilenet: CUDA is {missing}", file=sys.stderr)
        return 1
    print(device.status(), flush=True)
    if options.sanitizer:
        sanitizer()
        return 0
    from npmobilenet.bench.cuda import report

    run = Run(options)
    measure(run)
    run.save()
    print("\n".join(report.markdown(run.found)))
    checked = run.found.get("kernels", []) + run.found.get("right_networks", [])
    return 0 if all(row["right"] for row in checked) else 1


if __name__ == "__main__":
    sys.exit(main())
