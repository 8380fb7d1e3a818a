"""A billion images: how long so many cores compute, and what else would have to keep up with them.

Each stage of the way from storage to a row of a table has a rate in images a second; the slowest is the whole's. Cores
add up, storage and network do not: so there is a number of cores from which more of them are of no use.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npmobilenet.bench.stream.cost import Cost, measured
from npmobilenet.bench.stream.photographs import SIZES, photograph
from npmobilenet.bench.study.study import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EFFICIENCY = 0.9  # of the cores' time that is spent on images, as measured (docs/scale.md)
LOCK = 0.25e-3  # seconds for an image during which a process holds Python's lock
LOCK_SHARE = 0.5  # of the time: beyond it threads wait for each other
SHARD = 1000  # images in a tar archive: one request for all of them
CORES = (1, 4, 16, 64, 256, 1024, 4096)
ROW = {"five classes, .csv": 240, "1280 features, .parquet": 4800}  # bytes of a table for an image


@dataclass(frozen=True)
class Photographs:
    """Photographs of one kind."""

    name: str
    size: int  # bytes of a file
    cost: Cost

    def computed(self, cores: float) -> float:
        """Images a second."""
        return EFFICIENCY * cores / self.cost.total


@dataclass(frozen=True)
class Scale:
    """What so many images cost."""

    images: float
    cores: int
    storage: float  # bytes a second
    link: float
    requests: float
    kinds: list[Photographs]
    measured: bool

    def limits(self, kind: Photographs) -> dict[str, float]:
        """Images a second that each stage but the cores can do, by its name."""
        return {
            "storage": self.storage / kind.size,
            "network": self.link / kind.size,
            "requests, a file each": self.requests,
            f"requests, {SHARD} in a shard": self.requests * SHARD,
        }

    def slowest(self, kind: Photographs, shards: bool, cores: int | None = None) -> tuple[str, float]:
        """What decides, and its images a second."""
        left_out = "requests, a file each" if shards else f"requests, {SHARD} in a shard"
        rates = {name: rate for name, rate in self.limits(kind).items() if name != left_out}
        rates["computing"] = kind.computed(cores or self.cores)
        name = min(rates, key=rates.__getitem__)
        return name, rates[name]

    def processes(self, kind: Photographs) -> int:
        """Among how many the cores of one machine are better shared out, so that Python's lock is no limit."""
        return max(1, math.ceil(kind.computed(self.cores) * LOCK / LOCK_SHARE))

    def numbers(self) -> dict[str, Any]:
        """Return what JSON holds."""
        about = {"images": self.images, "cores": self.cores, "efficiency": EFFICIENCY}
        about |= {"storage": self.storage, "network": self.link, "requests": self.requests, "measured": self.measured}
        kinds = []
        for kind in self.kinds:
            name, rate = self.slowest(kind, True)
            kinds.append(
                {
                    "photographs": kind.name, "bytes": kind.size, "seconds": kind.cost._asdict(),
                    "limits": {"computing": kind.computed(self.cores), **self.limits(kind)},
                    "bottleneck": name, "images_per_second": rate, "hours": self.images / rate / 3600,
                    "core_hours": self.images * kind.cost.total / EFFICIENCY / 3600,
                    "terabytes": self.images * kind.size / 1e12, "processes": self.processes(kind),
                }
            )  # fmt: skip
        return {**about, "photographs": kinds}

    def tables(self) -> list[Table]:
        """Return what an image costs, the whole, each stage's rate, and where the bottleneck moves."""
        costs = Table(
            "One image on one core, ms" + (", measured here" if self.measured else ""),
            ("photographs", "KB", "decoding", "resizing", "network", "all", "images/s of a core"),
            [
                (kind.name, f"{kind.size / 1e3:.0f}", *(f"{1e3 * step:.2f}" for step in kind.cost),
                 f"{1e3 * kind.cost.total:.2f}", f"{kind.computed(1):.1f}")
                for kind in self.kinds
            ],
            notes=[f"of a core's time {100 * EFFICIENCY:.0f} % go into images, as docs/scale.md measured it"],
        )  # fmt: skip
        whole = Table(
            f"{self.images:.3g} images on {self.cores} cores, in tar archives of {SHARD}",
            ("photographs", "bottleneck", "images/s", "hours", "core-hours", "TB read", "processes"),
            [
                (one["photographs"], one["bottleneck"], f"{one['images_per_second']:.0f}", f"{one['hours']:.1f}",
                 f"{one['core_hours']:.0f}", f"{one['terabytes']:.1f}", str(one["processes"]))
                for one in self.numbers()["photographs"]
            ],
            texts=2,
            notes=[
                f"processes: a thread holds Python's lock for {1e3 * LOCK:g} ms an image; one process for so many "
                f"cores that it is held {100 * LOCK_SHARE:.0f} % of the time",
                "the table written: "
                + ", ".join(f"{name}: {self.images * size / 1e12:.2f} TB" for name, size in ROW.items()),
            ],
        )  # fmt: skip
        stages = list(self.limits(self.kinds[0]))
        limits = Table(
            f"What each stage can do, images/s: storage {self.storage / 1e6:.0f} MB/s, network "
            f"{8 * self.link / 1e9:g} Gbit/s, {self.requests:.0f} requests/s",
            ("photographs", f"computing, {self.cores} cores", *stages),
            [
                (kind.name, f"{kind.computed(self.cores):.0f}", *(f"{rate:.0f}" for rate in self.limits(kind).values()))
                for kind in self.kinds
            ],
        )
        moves = Table(
            "Where the bottleneck moves: how many cores each stage can feed",
            ("photographs", *stages),
            [
                (kind.name, *(f"{rate / kind.computed(1):.0f}" for rate in self.limits(kind).values()))
                for kind in self.kinds
            ],
            notes=["with more cores than that, they wait for it"],
        )
        return [costs, whole, limits, moves]

    def draw(self, figure: Figure) -> None:
        """Draw images a second over the number of cores, and where each stage ends that."""
        from npmobilenet.bench.study.pictures import GREY, SERIES

        axes = figure.subplots()
        for kind, colour in zip(self.kinds, SERIES, strict=False):
            axes.loglog(CORES, [kind.computed(cores) for cores in CORES], ":", color=colour)
            rates = [self.slowest(kind, True, cores)[1] for cores in CORES]
            axes.loglog(CORES, rates, "o-", color=colour, label=f"{kind.name}, in archives")
            for name in ("storage", "network"):
                rate = self.limits(kind)[name]
                axes.annotate(f"{name}, {kind.name}", (CORES[0], rate), color=colour, fontsize=8, va="bottom")
                axes.axhline(rate, color=colour, linewidth=0.6)
        axes.axhline(self.requests, color=GREY, linewidth=0.6)
        axes.annotate(
            "requests, a file each", (CORES[-1], self.requests), color=GREY, fontsize=8, ha="right", va="bottom"
        )
        axes.set(xlabel="cores", ylabel="images a second", title="Cores add up until something else is full")
        axes.legend()


def study(
    number: float,
    cores: int,
    milliseconds: tuple[float, ...] | None,
    size: int | None,
    storage: float,
    link: float,
    requests: float,
    model: str,
) -> Scale:
    """Calculate what so many images cost, of the project's two sizes of photographs, or of one that is described.

    Parameters
    ----------
    number : float
        Of images.
    cores : int
    milliseconds : three floats, optional
        Of decoding, resizing and the network, for an image on one core; measured here if None.
    size : int, optional
        Bytes of a file, with `milliseconds`.
    storage : float
        MB a second that it gives.
    link : float
        Gbit a second.
    requests : float
        A second that the storage answers.
    model : str
        What is measured.
    """
    if (milliseconds is None) != (size is None):
        raise ValueError("--milliseconds and --bytes describe a photograph together: give both, or neither")
    if milliseconds is None:
        with tempfile.TemporaryDirectory() as folder:
            kinds = [_measured(pixels, Path(folder), model) for pixels in SIZES]
    else:
        if len(milliseconds) != 3 or min(milliseconds) < 0 or not sum(milliseconds):
            raise ValueError("--milliseconds takes three numbers, of decoding, resizing and the network, such as 1,1,6")
        kinds = [Photographs("as given", size, Cost(*(value / 1e3 for value in milliseconds)))]
    return Scale(number, cores, 1e6 * storage, 1e9 / 8 * link, requests, kinds, milliseconds is None)


def _measured(pixels: tuple[int, int], folder: Path, model: str) -> Photographs:
    name = f"{pixels[0]}x{pixels[1]}"
    file = photograph(pixels, folder / f"{name}.jpg")
    return Photographs(name, file.stat().st_size, measured(file, model))
