"""How far a network of 8 bits names what that of float32 names: ``python -m npmobilenet.bench.agreement FOLDER``.

Crops of the photographs in a folder, of random place, size and side, from a seed. Of each network: the signal to noise
of the logits (the variance of those of an image over the squared error), and the share of crops whose most probable
class is the same, of all and of those where float32 is sure: its first logit leads the second by more than 0.5.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from npmobilenet.image import preprocess, read_image
from npmobilenet.loading import load
from npmobilenet.model import Model, quantize
from npmobilenet.text import columns, to_json

SMALLEST, SURE = 0.35, 0.5  # side of a crop, of the photograph's shorter one; lead of the first logit
AT_ONCE = 25


@dataclass(frozen=True)
class Agreement:
    """Of one network."""

    model: str
    crops: int
    decibels: float
    same: float
    same_where_sure: float
    sure: int


def photographs_in(folder: Path) -> list[Path]:
    """Return the photographs of a folder.

    Raises
    ------
    ValueError
        If it has none.
    """
    found = folder.iterdir() if folder.is_dir() else ()
    paths = sorted(path for path in found if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not paths:
        raise ValueError(f"{folder}: has no photographs (.png, .jpg)")
    return paths


def crops(paths: Sequence[Path], count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield so many square crops (H, W, 3) of photographs, in turns; every other one is mirrored."""
    random, photographs = np.random.default_rng(seed), [np.asarray(read_image(path)) for path in paths]
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        shorter = min(photograph.shape[:2])
        side = max(1, int(random.uniform(SMALLEST, 1) * shorter))
        top, left = (int(random.integers(0, length - side + 1)) for length in photograph.shape[:2])
        crop = photograph[top : top + side, left : left + side]
        yield np.ascontiguousarray(crop[:, ::-1] if number % 2 else crop)


def agreement(name: str, whole: Model, made: Model, images: Iterator[np.ndarray]) -> Agreement:
    """Compare two models on images."""
    preprocessing = replace(whole.preprocessing, resize=whole.preprocessing.crop, crop_fraction=None)
    inputs = [preprocess(image, preprocessing) for image in images]
    batches = [np.stack(inputs[at : at + AT_ONCE]) for at in range(0, len(inputs), AT_ONCE)]
    return agreement_of(name, *(np.concatenate([model(x) for x in batches]) for model in (whole, made)))


def agreement_of(name: str, exact: np.ndarray, near: np.ndarray) -> Agreement:
    """Compare logits (N, C), or (N, 1) of which the sign tells."""
    exact, near = np.float64(exact), np.float64(near)
    several = exact.shape[1] > 1
    centred = exact - exact.mean(axis=1, keepdims=True) if several else exact
    same = exact.argmax(axis=1) == near.argmax(axis=1) if several else (exact[:, 0] > 0) == (near[:, 0] > 0)
    ordered = np.sort(exact, axis=1)
    sure = ordered[:, -1] - ordered[:, -2] > SURE if several else np.abs(exact[:, 0]) > SURE
    noise = max(((near - exact) ** 2).sum(), np.finfo(float).tiny)
    where_sure = float(same[sure].mean()) if sure.any() else float("nan")
    decibels = 10 * np.log10(max((centred**2).sum(), np.finfo(float).tiny) / noise)
    return Agreement(name, len(exact), float(decibels), float(same.mean()), where_sure, int(sure.sum()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(prog="npmobilenet.bench.agreement", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="with photographs")
    parser.add_argument("--model", action="append", help="several times for several (default: the shipped ones)")
    parser.add_argument("--crops", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weight-bits", type=int, default=8)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        paths = photographs_in(options.folder)
    except ValueError as error:
        parser.error(str(error))
    found = []
    for name in options.model or ("mobilenet_v2", "mobilenet_v1"):
        whole = load(name, backend=options.backend)
        made = quantize(whole, weight_bits=options.weight_bits)
        found.append(agreement(name, whole, made, crops(paths, options.crops, options.seed)))
    if options.json:
        print(to_json([asdict(one) for one in found], indent=1))
        return 0
    header = ("model", "crops", "dB", "same class", "where sure", "of")
    rows = [
        (
            one.model,
            str(one.crops),
            f"{one.decibels:.1f}",
            f"{one.same:.1%}",
            f"{one.same_where_sure:.1%}",
            str(one.sure),
        )
        for one in found
    ]
    print("\n".join(columns([header, *rows], texts=1)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
