"""``npmobilenet classify``: photographs to labels."""

from __future__ import annotations

import argparse
import glob
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from npmobilenet.cli.options import add_network_options, positive
from npmobilenet.errors import ImageError

if TYPE_CHECKING:
    import numpy as np

    from npmobilenet.model import Model, Prediction

IMAGE_SUFFIXES = {
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
}
FILES_PER_THREAD = 4  # decoded and computed together
PROGRESS_FROM = 8  # images: fewer are done before a progress bar could be read


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = commands.add_parser("classify", help="name what photographs show")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image file, folder (with its subfolders) or glob")
    parser.add_argument(
        "--model",
        default="mobilenet_v2",
        metavar="NAME|CHECKPOINT",
        help="default: %(default)s, trained on ImageNet",
    )
    parser.add_argument("--top", type=positive, default=5, metavar="K", help="classes per image (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print a JSON list with one object per image")
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all CPUs this process may use")
    parser.add_argument(
        "--backend", default="cpu", choices=("cpu", "cuda", "njit", "reference"), help="default: %(default)s"
    )
    parser.add_argument("--classes", type=Path, metavar="FILE", help="class names, one per line")
    parser.add_argument("--multi-label", action="store_true", help="a probability of its own for every class")
    add_network_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Classify every image; one that cannot be read is reported and makes the exit code 1."""
    from npmobilenet.model import load

    files, failures = find_images(options.images)
    for message in failures:
        print(f"npmobilenet: {message}", file=sys.stderr)
    if not files and not options.json:
        return 1
    model = load(
        options.model,
        architecture=options.architecture,
        width=options.width,
        padding=options.padding,
        bn_eps=options.bn_eps,
        activation=options.activation,
        layout=options.layout,
        prefix=options.prefix,
        multi_label=options.multi_label or None,
        classes=_read_classes(options.classes),
        threads=options.threads,
        backend=options.backend,
    )
    show = _JsonOutput() if options.json else _TextOutput()
    for message in failures:
        show.failure(message.partition(": ")[0], message)
    failed = len(failures)
    for name, result in classify_all(model, _progress(files), options.top):
        if isinstance(result, ImageError):
            failed += 1
            print(f"npmobilenet: {result}", file=sys.stderr)
            show.failure(name, str(result))
        else:
            show.predictions(name, result)
    show.end()
    if len(files) + len(failures) > 1 and failed:
        print(f"npmobilenet: {failed} of {len(files) + len(failures)} images failed", file=sys.stderr)
    return 1 if failed else 0


def find_images(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the image files that the arguments name, and a message for each argument that names none."""
    files: list[str] = []
    failures = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found = sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not found:
                failures.append(f"{argument}: no image files in this folder")
        elif not path.exists() and glob.has_magic(argument):
            matches = glob.glob(argument, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
            found = sorted(name for name in matches if Path(name).is_file())
            if not found:
                failures.append(f"{argument}: no file matches")
        else:
            found = [argument]
        files += found
    return files, failures


def classify_all(model: Model, files: Iterable[str], top: int) -> Iterator[tuple[str, list[Prediction] | ImageError]]:
    """Yield each file with its predictions, or with the error that kept it from being read.

    Files are decoded by several threads and computed in batches, so that no memory grows with their number.
    """
    import numpy as np

    with ThreadPoolExecutor(model.threads) as pool:
        for names in _chunks(files, FILES_PER_THREAD * model.threads):
            inputs = list(pool.map(lambda name: _input_or_error(model, name), names))
            good = [x for x in inputs if not isinstance(x, ImageError)]
            predictions = iter(model.top(model(np.stack(good)), top) if good else [])
            for name, x in zip(names, inputs, strict=True):
                yield name, x if isinstance(x, ImageError) else next(predictions)


def _input_or_error(model: Model, name: str) -> np.ndarray | ImageError:
    try:
        return model.preprocess(name)
    except ImageError as error:
        return error


def _chunks(items: Iterable[str], length: int) -> Iterator[list[str]]:
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == length:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _progress(files: Sequence[str]) -> Iterable[str]:
    """Show a progress bar on a terminal, if tqdm is installed and there is enough to wait for."""
    if len(files) < PROGRESS_FROM or not sys.stderr.isatty():
        return files
    try:
        from tqdm import tqdm
    except ImportError:
        return files
    return tqdm(files, unit="image", file=sys.stderr)


def _read_classes(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot read class names, one per line: {error}") from None


class _TextOutput:
    def predictions(self, name: str, predictions: list[Prediction]) -> None:
        print(name)
        for label, probability, _ in predictions:
            print(f"  {100 * probability:6.2f} %  {label}")

    def failure(self, name: str, message: str) -> None:
        pass  # it is on stderr

    def end(self) -> None:
        pass


class _JsonOutput:
    """A JSON list, printed as it grows: one line per image."""

    def __init__(self) -> None:
        self._before = "["

    def _print(self, item: dict) -> None:
        print(self._before + json.dumps(item, ensure_ascii=False), end="", flush=True)
        self._before = ",\n "

    def predictions(self, name: str, predictions: list[Prediction]) -> None:
        self._print({"image": name, "predictions": [prediction._asdict() for prediction in predictions]})

    def failure(self, name: str, message: str) -> None:
        self._print({"image": name, "error": message})

    def end(self) -> None:
        print("]" if self._before != "[" else "[]")
