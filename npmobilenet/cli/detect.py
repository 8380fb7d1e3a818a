"""``npmobilenet detect``: what is in photographs, and where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from npmobilenet.cli.photographs import IMAGES_HELP, Run, find_images
from npmobilenet.text import printable

if TYPE_CHECKING:
    import argparse

    import numpy as np

    from npmobilenet.model import Model
    from npmobilenet.tasks.detection import Detection


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    from npmobilenet.cli.options import add_model_options, probability
    from npmobilenet.cli.out import SOURCES_HELP, add_out_option, add_part_option

    parser = commands.add_parser(
        "detect",
        help="find things in photographs",
        description="Print what is found in each photograph, with its score and its box: left, top, right and bottom "
        "in pixels. One that cannot be read costs a line on standard error and the exit code 1; all others are "
        "looked at.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help=IMAGES_HELP + SOURCES_HELP)
    parser.add_argument(
        "--threshold", type=probability, default=0.5, metavar="T", help="lowest score (default %(default)s)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON list with one object per image")
    add_out_option(form)
    parser.add_argument(
        "--draw", type=Path, metavar="FOLDER", help="write every photograph there with the boxes, as NAME.boxes.jpg"
    )
    add_part_option(parser)
    add_model_options(parser, "ssdlite_mobilenet_v2_person", "persons")
    return parser


def run(options: argparse.Namespace) -> int:
    """Look at every image; one that cannot be read is reported and makes the exit code 1."""
    from npmobilenet.cli.options import load_model

    if options.out and options.draw:
        raise ValueError("--draw is for photographs whose boxes are printed, without --out")
    model = load_model(options)
    if options.out:
        from npmobilenet.cli.out import write_table
        from npmobilenet.pipelines import Detect

        return write_table(options, Detect(model, threshold=options.threshold))
    return show(model, options)


def show(model: Model, options: argparse.Namespace) -> int:
    """Print what a model finds in the images."""
    import numpy as np

    drawn = None
    if options.draw:
        from npmobilenet.cli.drawing import Drawings

        drawn = Drawings(options.draw, options.images).boxes

    def prepare(picture: np.ndarray) -> list[np.ndarray]:
        return [model.preprocess(picture), np.array(picture.shape[:2])]

    def compute(batch: np.ndarray, sizes: np.ndarray) -> list[list[Detection]]:
        return model.detections(batch, [tuple(map(int, size)) for size in sizes], options.threshold)

    images = Run(find_images(options.images), [model], compute, prepare)
    images.show(options.json, _lines, _as_json, drawn)
    return images.exit_code()


def _as_json(found: list[Detection]) -> dict[str, list[dict]]:
    return {"detections": [one._asdict() for one in found]}


def _lines(found: list[Detection]) -> Iterator[str]:
    for one in found:
        unsure = f"  unsure {' '.join(f'{part:.2f}' for part in one.uncertainty)}" if one.uncertainty else ""
        yield f"  {one.score:.3f}  {printable(one.label)}  {' '.join(f'{edge:.0f}' for edge in one.box)}{unsure}"
    if not found:
        yield "  nothing"
