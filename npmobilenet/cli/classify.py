"""``npmobilenet classify``: photographs to labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from npmobilenet.cli.photographs import IMAGES_HELP, Run, find_images
from npmobilenet.text import printable

if TYPE_CHECKING:
    import argparse

    import numpy as np

    from npmobilenet.model import Model, Prediction


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    from npmobilenet.cli.options import add_model_options, positive
    from npmobilenet.cli.out import SOURCES_HELP, add_out_option, add_part_option

    parser = commands.add_parser(
        "classify",
        help="name what photographs show",
        description="Print the most probable classes of each photograph. One that cannot be read costs a line on "
        "standard error and the exit code 1; the others are classified all the same.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help=IMAGES_HELP + SOURCES_HELP)
    parser.add_argument("--top", type=positive, default=5, metavar="K", help="classes per image (default %(default)s)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON list with one object per image")
    add_out_option(form)
    add_part_option(parser)
    add_model_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Classify every image; one that cannot be read is reported and makes the exit code 1."""
    from npmobilenet.cli.options import load_model

    model = load_model(options)
    if options.out:
        from npmobilenet.cli.out import write_table
        from npmobilenet.pipelines import Classify

        return write_table(options, Classify(model, top=options.top))
    return show(model, options)


def show(model: Model, options: argparse.Namespace) -> int:
    """Print what a model makes of the images."""
    model.require_classifier()

    def compute(batch: np.ndarray) -> Iterator[list[Prediction] | ValueError]:
        for logits in model(batch):
            try:
                yield model.top(logits[None], options.top)[0]
            except ValueError as error:  # the logits are not finite: a matter of this image alone
                yield error

    images = Run(find_images(options.images), [model], compute)
    images.show(options.json, _lines, lambda result: {"predictions": [prediction._asdict() for prediction in result]})
    return images.exit_code()


def _lines(predictions: list[Prediction]) -> Iterator[str]:
    for label, probability, _ in predictions:
        yield f"  {100 * probability:6.2f} %  {printable(label)}"
