"""A network in an ONNX file, with what belongs to it: preprocessing and the names of classes.

An option of `npmobilenet.load` comes first, then the file's own metadata (under ``"npmobilenet"``), then a JSON file of
the same name beside it, then timm's or Hugging Face's ``config.json`` and ``preprocessor_config.json``. What remains is
assumed, and said.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from npmobilenet.checkpoints.info import WeightsInfo
from npmobilenet.checkpoints.json_text import parse_object
from npmobilenet.checkpoints.model_folder import CONFIG, PREPROCESSOR, read_beside
from npmobilenet.checkpoints.publisher_config import PublisherConfig
from npmobilenet.checkpoints.reader import METADATA_NAME
from npmobilenet.errors import CheckpointError
from npmobilenet.image import IMAGENET, Preprocessing
from npmobilenet.onnx.file import Dimension, OnnxGraph, read_model
from npmobilenet.onnx.layout import FIRST
from npmobilenet.onnx.parts import Whole, check, has_channels_last, whole
from npmobilenet.onnx.qdq import rounds_to_bytes
from npmobilenet.onnx.qlinear import normalised
from npmobilenet.provenance import Provenance
from npmobilenet.text import plural, printable

ARCHITECTURE, LONGEST = "architecture", 100  # in the metadata, and characters of it
TOLD = ("preprocessing", "classes", "multi_label")
BYTE_MEAN = 50  # what is subtracted from bytes, or divides them, is larger; of values up to 1 it never is


@dataclass(frozen=True)
class OnnxNetwork:
    """What an ONNX file holds.

    Attributes
    ----------
    graph : OnnxGraph
    whole : Whole or None
        The same as a graph of this package's, if it is one.
    outputs : int
        Of the classifier; 0 without one.
    preprocessing, classes, multi_label
        As of `Model`.
    architecture : str
        What the file's metadata calls it; empty if nothing.
    provenance : Provenance
    notes : tuple of str
        What was assumed, a line for each.
    dtype : {"float32", "int8"}
        "int8" if tensors are rounded to 8 bits.
    """

    graph: OnnxGraph
    whole: Whole | None
    outputs: int
    preprocessing: Preprocessing
    classes: Sequence[str] | None
    multi_label: bool
    architecture: str
    provenance: Provenance
    notes: tuple[str, ...]
    dtype: str


def read_network(path: str | Path, **options: Any) -> OnnxNetwork:
    """Read an ONNX file; ``options`` are `TOLD`, as `npmobilenet.load` takes them.

    Raises
    ------
    CheckpointError
        If it cannot be read, or holds what is not supported. The message is one line that begins with the path.
    """
    path, where = Path(path), printable(path)
    graph = read_model(path)
    try:
        graph = normalised(graph)
        check(graph)
        found, notes = _told(graph, path, where)
        known = options["preprocessing"] or found["preprocessing"]
        size = known.crop if known else IMAGENET.crop
        one = whole(graph, size)
    except CheckpointError as error:
        text = str(error)
        raise CheckpointError(text if text.startswith(f"{where}: ") else f"{where}: {text}") from error.__cause__
    settled = Provenance()
    usual, values = _usual(graph)
    outputs = _outputs(graph, one)
    preprocessing = settled.choose(
        "preprocessing", option=options["preprocessing"], file=found["preprocessing"], assumed=usual
    )
    if settled["preprocessing"][1] == "assumed" and outputs:
        notes.append(
            f"preprocessing {usual.crop[0]}x{usual.crop[1]} of {usual.resize}, with {values}, assumed: the file does "
            "not say how photographs become inputs (option preprocessing)"
        )
    classes = found["classes"] if options["classes"] is None else options["classes"]
    if classes is not None and options["classes"] is None and outputs and len(classes) != outputs:
        notes.append(f"{plural(len(classes), 'name')} of classes found for {outputs} outputs: not used")
        classes = None
    multi_label = settled.choose("multi_label", option=options["multi_label"], file=found["multi_label"], assumed=False)
    settled["classes"] = (
        plural(outputs, "class", "classes"),
        "option" if options["classes"] is not None else "file" if classes is not None else "assumed",
    )
    about = (graph, one, outputs, preprocessing, classes, bool(multi_label), _architecture(graph))
    dtype = one.part.dtype if one else "int8" if rounds_to_bytes(graph) else "float32"
    if dtype == "int8":
        settled["quantisation"] = ("stored", "file")
    return OnnxNetwork(*about, settled, tuple(notes), dtype)


def _architecture(graph: OnnxGraph) -> str:
    """The name that a file exported here has in its metadata."""
    named = parse_object(graph.metadata.get(METADATA_NAME, "{}"), "its metadata").get(ARCHITECTURE, "")
    return printable(named, LONGEST) if isinstance(named, str) else ""


def _told(graph: OnnxGraph, path: Path, where: str) -> tuple[dict[str, Any], list[str]]:
    """What the file, and those beside it, say of preprocessing and classes."""
    about = WeightsInfo.from_dict(parse_object(graph.metadata.get(METADATA_NAME, "{}"), "its metadata"), where)
    beside, notes = read_beside(path, f"{path.stem}.json") if path.suffix else ({}, ())
    named = WeightsInfo.from_dict(
        {name: beside[name] for name in TOLD if name in beside}, f"{path.stem}.json beside it"
    )
    config, more = read_beside(path, CONFIG)
    preprocessor, others = read_beside(path, PREPROCESSOR)
    publisher = PublisherConfig.read(config, preprocessor, where)
    found: dict[str, Any] = {}
    for name in TOLD:
        values = [getattr(one, name) for one in (about, named, publisher)]
        found[name] = next((value for value in values if value is not None), None)
    return found, [*notes, *more, *others]


def _usual(graph: OnnxGraph) -> tuple[Preprocessing, str]:
    """ImageNet's, or TensorFlow's where channels come last, in the file's size; and what values that gives."""
    usual, values = IMAGENET, "the mean and deviation usual for ImageNet"
    if has_channels_last(graph):
        usual, values = replace(IMAGENET, mean=(0.5,) * 3, std=(0.5,) * 3), "values from -1 to 1, as TensorFlow's have"
    if _scales_bytes(graph):
        usual = replace(IMAGENET, mean=(0.0,) * 3, std=(1 / 255,) * 3)
        values = "values from 0 to 255, which the network scales itself"
    (height, width), _ = _image(graph)
    if isinstance(height, int) and isinstance(width, int):
        with suppress(ValueError):  # of a size that no photograph has
            usual = replace(usual, resize=round(min(height, width) * 256 / 224), crop=(height, width))
    return usual, values


def _image(graph: OnnxGraph) -> tuple[tuple[Dimension, Dimension], Dimension]:
    """Height and width of the first input, and its channels, if it is an image."""
    shape = graph.inputs[0].shape if graph.inputs else None
    if shape is None or len(shape) != 4:
        return (None, None), None
    _, channels, *size = (shape[axis] for axis in FIRST) if has_channels_last(graph) else shape
    return tuple(size), channels


def _scales_bytes(graph: OnnxGraph) -> bool:
    """Whether the first that is done with an image is what is done with bytes: a mean or a divisor of that size."""
    if not graph.inputs:
        return False
    known = dict(graph.constants)
    known |= {
        node.outputs[0]: node.attributes["value"]
        for node in graph.nodes
        if node.operator == "Constant" and isinstance(node.attributes.get("value"), np.ndarray)
    }
    image = {graph.inputs[0].name}
    for node in graph.nodes:
        if not image.intersection(node.inputs):
            continue
        if node.operator in ("Identity", "Cast", "Transpose"):
            image.update(node.outputs)
            continue
        number = known.get(next((name for name in node.inputs if name not in image), ""))
        if number is None or not number.size or node.operator not in ("Mul", "Div", "Sub", "Add"):
            return False
        size = np.abs(number.astype(np.float64))
        return bool((size < 1 / BYTE_MEAN if node.operator == "Mul" else size > BYTE_MEAN).all())
    return False


def _outputs(graph: OnnxGraph, one: Whole | None) -> int:
    """How many classes there are, if it is a classifier of images."""
    if one is not None:
        found = one.part.graph
        return found.channels_of(found.node_of("logits")) if found.main_output == "logits" else 0
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return 0
    (scores,) = graph.outputs
    fits = _image(graph)[1] == 3 and len(scores.shape or ()) == 2
    return scores.shape[1] if fits and isinstance(scores.shape[1], int) else 0
