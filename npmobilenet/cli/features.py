"""``npmobilenet features``: photographs to vectors, for searching and for classifiers of one's own."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from npmobilenet.cli.options import add_model_options, load_model
from npmobilenet.cli.photographs import IMAGES_HELP, Run, find_images
from npmobilenet.cli.terminal import on_a_line
from npmobilenet.text import dimensions, plural, printable

if TYPE_CHECKING:
    import numpy as np


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = commands.add_parser(
        "features",
        help="write the features of photographs to a file",
        description="Write what the network computes of each photograph before it names a class: as .npz (arrays names "
        "and features), .npy (names beside it, in .names.txt) or .csv.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help=IMAGES_HELP)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".npz, .npy or .csv")
    parser.add_argument(
        "--block", default="pool", metavar="NAME", help="a block or layer (default: the pooled features)"
    )
    add_model_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Write the features of every image that can be read; of none, no file."""
    from npmobilenet.cli.feature_files import feature_file

    model = load_model(options)

    def compute(batch: np.ndarray) -> Iterator[np.ndarray | ValueError]:
        import numpy as np

        for features in model.features(batch, options.block):
            finite = np.isfinite(features).all()
            yield features if finite else ValueError("its features are not finite; are the weights damaged?")

    images = Run(find_images(options.images), [model], compute)
    shape: tuple[int, ...] = ()
    with feature_file(options.out) as file:
        for photograph, result in images:
            if not isinstance(result, Exception):
                file.append(photograph.name, result)
                shape = result.shape
        if not shape:
            raise ValueError(f"{printable(options.out)}: not written: there are no features")
    done = len(images.photographs) - images.failed
    print(f"written: {on_a_line(options.out)}: {plural(done, 'image')}, {dimensions(shape)} features each")
    return images.exit_code()
