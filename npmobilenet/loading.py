"""From weights known by name, or a file, to a :class:`~npmobilenet.model.Model`: :func:`load`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npmobilenet.backends import DEFAULT, checked_backend
from npmobilenet.errors import AssumptionWarning, CheckpointError
from npmobilenet.kernels.sharing import MAKING
from npmobilenet.recorded.shipped import find
from npmobilenet.text import plural, printable

if TYPE_CHECKING:
    import numpy as np

    from npmobilenet.architectures.yolo import Head
    from npmobilenet.checkpoints import Checkpoint
    from npmobilenet.checkpoints.info import WeightsInfo
    from npmobilenet.checkpoints.settle import Settled
    from npmobilenet.graph import Graph
    from npmobilenet.image import Preprocessing
    from npmobilenet.model import Model
    from npmobilenet.tasks.boxes import Detector

# What tells networks from each other is imported in functions: a network that is ready needs none of it. Whoever forks
# waits for that, since what is half imported would remain so in the child.

DARKNET_FILES = (".cfg", ".weights")
READY = ("auto", "blocked")  # backends


def load(
    source: str | os.PathLike = "mobilenet_v2",
    *,
    architecture: str | None = None,
    width: float | None = None,
    num_classes: int | None = None,
    padding: str | None = None,
    bn_eps: float | None = None,
    activation: str | None = None,
    layout: str | None = None,
    output_stride: int | None = None,
    prefix: str | None = None,
    pair: str | os.PathLike | None = None,
    classes: Sequence[str] | None = None,
    multi_label: bool | None = None,
    preprocessing: Preprocessing | None = None,
    ema: bool | None = None,
    threads: int | None = None,
    backend: str = DEFAULT,
    dtype: str | None = None,
    keep_bytes: int | None = None,
) -> Model:
    """Load a network with its weights.

    Parameters
    ----------
    source : str or path
        The name of shipped or downloaded weights (``npmobilenet weights`` lists them), or a checkpoint file:
        ``.pth``/``.pt`` of PyTorch, ``.safetensors``, ``.npz``, or ``.cfg`` or ``.weights`` of Darknet; or a network in
        an ``.onnx`` file, run as it is.
    architecture : str, optional
        One of `npmobilenet.ARCHITECTURES`; read off the tensors' names and shapes if None.
    width : float, optional
        Width multiplier; read off the tensors' shapes if None.
    num_classes : int, optional
        Read off the classifier's shape if None; 0: without a classifier, for features alone.
    padding : {"symmetric", "same"}, optional
        Of the convolutions: PyTorch's symmetric zeros, or TensorFlow's SAME. Tensors do not tell; the default is
        what the checkpoint's metadata or a ``config.json`` beside it says, else what is usual where tensors are
        named so (docs/checkpoints.md).
    bn_eps : float, optional
        Of the batch norms: likewise.
    activation : {"relu", "relu6", "swish", "hard_swish"}, optional
        Of the layers where the paper's table names none: likewise.
    layout : {"imagenet", "cifar"}, optional
        The strides of a MobileNetV2, where names and shapes do not tell: "cifar" for images of 32x32.
    output_stride : {2, 4, 8, 16, 32}, optional
        Of the features: dilations in place of strides that would make them smaller, with the same weights
        (:meth:`Architecture.with_output_stride`).
    prefix : str, optional
        What the names of the network's tensors begin with ("encoder."), if the file holds several networks; found
        if None.
    pair : path, optional
        Of a network in Darknet's two files, the one that ``source`` is not; found beside it if None.
    classes : sequence of str, optional
        Names of the outputs: what the metadata says, else ImageNet's for 1000 outputs (after "background" for
        1001), else "class 0", ...
    multi_label : bool, optional
        Whether several outputs may be right of one photograph: each then has a probability of its own.
    preprocessing : Preprocessing, optional
        How a photograph becomes an input: what the metadata or a file beside it says, else what the publisher of
        such names declares, else torchvision's for ImageNet at the architecture's resolution.
    ema : bool, optional
        Of a checkpoint that holds a moving average of the weights beside them: the average (True; an error if there is
        none), the weights themselves (False), or what the training's own tools would take: the average if it is
        complete. ``repr(model)`` says what was read.
    threads : int, optional
        Default of every call; all CPUs that this process may use if None.
    backend : {"auto", "blocked", "plain", "cuda", "reference"}
        What computes. "auto": the fastest kernels of the CPU, which are "blocked" (explicit vectors on tensors blocked
        by channels), or "plain" for a network that those cannot compute (readable Numba loops); never a GPU. "cuda":
        an NVIDIA GPU. "reference": the NumPy definitions in float64. ("cpu" and "njit" still mean "auto" and "plain".)
    dtype : {"float32", "float16", "int8"}, optional
        In which weights and activations are stored; as in the file if None, which is float32 unless the file is a
        quantised network. "int8": quantised as by :func:`quantize`, from the weights alone. "float16" on a GPU only,
        where it halves the memory traffic; sums are float32.
    keep_bytes : int, optional
        How many bytes of working memory the model keeps between calls at most: the environment variable
        ``NPMOBILENET_KEEP_BYTES`` if None, else 64 MiB (enough for one image of 1200x1200 in MobileNetV2, or sixteen of
        224x224 at once); with the backend "cuda" all that the GPU has free. A call takes what it needs beyond that,
        and gives it back. :meth:`Model.release` lets all of it go.

    Returns
    -------
    Model

    Raises
    ------
    CheckpointError
        If the file cannot be read, is refused as unsafe, or does not fit the network.
    ValueError
        If an option is out of range.
    MissingDependencyError
        If the backend is "cuda" and there is no GPU, or a package is missing.

    Warns
    -----
    AssumptionWarning
        Of what the file does not tell though networks differ in it, and of tensors left out; once for each.
    FallbackWarning
        If the network holds an operation that the fastest kernels do not know, so that plain ones compute it.
    """
    checked_backend(backend)
    about_network = {
        "architecture": architecture,
        "width": width,
        "num_classes": num_classes,
        "padding": padding,
        "activation": activation,
        "layout": layout,
        "output_stride": output_stride,
        "prefix": prefix,
    }
    told = {"classes": classes, "multi_label": multi_label, "preprocessing": preprocessing}
    run = {"threads": threads, "backend": backend, "keep_bytes": keep_bytes, "source": str(source)}
    given = any(option is not None for option in (*about_network.values(), *told.values(), bn_eps, pair, ema))
    if isinstance(source, str) and not given and dtype in (None, "float32") and backend in READY:
        found = find(source)
        if found:
            with MAKING:  # while weights are folded
                from npmobilenet.ready import ReadyModel, ReadyProgram

            return ReadyModel(found.network, ReadyProgram(found, partial(whole, source)), **run)
    with MAKING:
        from npmobilenet.architectures import get_architecture
        from npmobilenet.checkpoints import read_checkpoint
        from npmobilenet.checkpoints.info import WeightsInfo
        from npmobilenet.checkpoints.reader import is_onnx
        from npmobilenet.checkpoints.settle import settle
        from npmobilenet.model import Model, quantised_graph, refuse_cuda
        from npmobilenet.weights import CATALOGUE

    if architecture is not None:
        get_architecture(architecture)
    entry = CATALOGUE.get(source) if isinstance(source, str) else None
    if not entry and Path(source).suffix.lower() in DARKNET_FILES:
        from npmobilenet.checkpoints.darknet import is_darknet  # few files are

        if is_darknet(Path(source)):
            _refuse_options(printable(source), **about_network, multi_label=multi_label, ema=ema)
            return _of_darknet(Path(source), pair, bn_eps, classes, preprocessing, dtype, run)
    if pair is not None:
        raise ValueError(f"{printable(source)}: pair is of Darknet's two files, .cfg and .weights, and this is neither")
    about_network["bn_eps"] = bn_eps
    if not entry and is_onnx(source):
        _refuse_options(printable(source), **about_network, ema=ema)
        return _of_onnx(source, told, dtype, run)
    try:
        checkpoint = entry.read(ema=ema) if entry else read_checkpoint(source, ema=ema)
    except CheckpointError as error:
        if entry or os.path.exists(source) or Path(source).name != str(source):  # noqa: PTH110 - false if too long
            raise
        raise CheckpointError(f"{error}; weights known by name: {', '.join(CATALOGUE)}") from None
    info = (entry and entry.about) or WeightsInfo.from_dict(checkpoint.metadata, printable(source))
    if checkpoint.holds_network:
        _refuse_options(printable(source), **about_network)
        return _of_network(checkpoint, info, told, dtype, run)
    settled = settle(
        checkpoint,
        info,
        printable(source),
        entry and entry.architecture,
        **about_network,
        **told,
    )
    for note in settled.notes:
        warnings.warn(f"{printable(source)}: {note}", AssumptionWarning, stacklevel=2)
    graph, weights = settled.fitted.graph, settled.fitted.weights
    if dtype == "int8":
        refuse_cuda(backend)
        stored = _as_stored(checkpoint, settled, printable(source))
        graph, weights = stored or quantised_graph(
            graph, weights, settled.preprocessing, settled.provenance, printable(source)
        )
    read_from = checkpoint.read_from if checkpoint.others else ""
    return Model(graph, weights, dtype=dtype or "float32", read_from=read_from, **_about(settled), **run)


def whole(name: str) -> Model:
    """Load a shipped network with its layers, whether it is ready or not."""
    from npmobilenet.checkpoints.info import WeightsInfo
    from npmobilenet.checkpoints.settle import OPTIONS, settle
    from npmobilenet.model import Model
    from npmobilenet.weights import CATALOGUE

    entry = CATALOGUE[name]
    checkpoint = entry.read()
    info = WeightsInfo.from_dict(checkpoint.metadata, name)
    settled = settle(checkpoint, info, name, entry.architecture, **dict.fromkeys(OPTIONS))
    return Model(settled.fitted.graph, settled.fitted.weights, source=name, **_about(settled))


def _about(settled: Settled) -> dict[str, Any]:
    """What a model is told of its weights."""
    from npmobilenet.labels import class_names

    fitted = settled.fitted
    return {
        "architecture": fitted.architecture.name,
        "width": fitted.width,
        "classes": None if settled.classes is None else class_names(settled.outputs, settled.classes),
        "multi_label": settled.multi_label,
        "preprocessing": settled.preprocessing,
        "definition": fitted.architecture,
        "names": fitted.names,
        "provenance": settled.provenance,
    }


def _as_stored(checkpoint: Checkpoint, settled: Settled, where: str) -> tuple[Graph, dict[str, np.ndarray]] | None:
    """The network of a file that PyTorch quantised, with the file's own scales; None for every other file."""
    if not checkpoint.quantisation:
        return None
    from npmobilenet.checkpoints.stored_scales import stored  # few files need it
    from npmobilenet.passes_stored import quantized_as_stored

    try:
        found = stored(checkpoint.quantisation, settled.fitted)
        if found is None:
            return None
        settled.provenance["quantisation"] = ("stored", "file")
        return quantized_as_stored(settled.fitted.graph, settled.fitted.weights, found)
    except (CheckpointError, ValueError) as error:
        raise CheckpointError(f"{where}: {error}") from error.__cause__


def _of_network(
    checkpoint: Checkpoint, info: WeightsInfo, told: dict[str, Any], dtype: str | None, run: dict[str, Any]
) -> Model:
    """The network of a file that says which one it is."""
    where = printable(run["source"])
    from npmobilenet.checkpoints.network_file import read_network
    from npmobilenet.image import IMAGENET
    from npmobilenet.model import Model, quantised_graph
    from npmobilenet.provenance import Provenance

    stored = read_network(checkpoint, where)
    graph, weights, provenance = stored.graph, stored.weights, Provenance()
    told = {name: getattr(info, name) if value is None else value for name, value in told.items()}
    preprocessing = told["preprocessing"] or IMAGENET
    if graph.is_quantised:
        if dtype not in (None, "int8"):
            raise ValueError(f"{where}: is a network of 8 bits, which cannot be loaded as {dtype!r:.40}")
        provenance["quantisation"], dtype = ("stored", "file"), "int8"
    elif dtype == "int8":
        graph, weights = quantised_graph(graph, weights, preprocessing, provenance, where)
    return Model(
        graph,
        weights,
        architecture=stored.architecture,
        width=stored.width,
        classes=told["classes"],
        multi_label=bool(told["multi_label"]),
        preprocessing=preprocessing,
        dtype=dtype or "float32",
        provenance=provenance,
        detector=_yolo(stored.heads),
        **run,
    )


def _yolo(heads: tuple[Head, ...]) -> Detector | None:
    """What reads the outputs of these detecting layers, if there are any."""
    if not heads:
        return None
    from npmobilenet.tasks.yolo import YOLO  # few networks have some

    return YOLO(heads)


def _of_darknet(
    path: Path,
    pair: str | os.PathLike | None,
    bn_eps: float | None,
    classes: Sequence[str] | None,
    preprocessing: Preprocessing | None,
    dtype: str | None,
    run: dict[str, Any],
) -> Model:
    """The network of Darknet's two files."""
    from npmobilenet.architectures.yolo import BN_EPS
    from npmobilenet.checkpoints.darknet import read_darknet
    from npmobilenet.image import letterboxed
    from npmobilenet.model import Model, quantised_graph, refuse_cuda
    from npmobilenet.provenance import Provenance

    read = read_darknet(path, None if pair is None else Path(pair), bn_eps)
    graph, weights, provenance = read.graph, read.weights, Provenance()
    provenance["configuration"], provenance["weights"] = ((printable(file), "file") for file in read.files)
    provenance.choose("bn_eps", option=bn_eps, source=BN_EPS)
    classes, by = (read.classes, "file") if classes is None and read.classes else (classes, "option")
    provenance["classes"] = (
        plural(read.heads[0].classes, "class", "classes"),
        "assumed" if classes is None else by,
    )
    preprocessing = preprocessing or letterboxed(read.size, graph.in_channels == 1)
    if dtype == "int8":
        refuse_cuda(run["backend"])
        graph, weights = quantised_graph(graph, weights, preprocessing, provenance, printable(path))
    return Model(
        graph,
        weights,
        architecture=read.name,
        classes=classes,
        preprocessing=preprocessing,
        dtype=dtype or "float32",
        provenance=provenance,
        detector=_yolo(read.heads),
        **run,
    )


def _of_onnx(source: str | os.PathLike, told: dict[str, Any], dtype: str | None, run: dict[str, Any]) -> Model:
    """The network of an ONNX file: one graph, or in parts."""
    from npmobilenet.image import Preprocessing
    from npmobilenet.model import Model, quantised_graph, refuse_cuda
    from npmobilenet.onnx.loading import read_network

    where = printable(source)
    if not isinstance(told["preprocessing"], (Preprocessing, type(None))):
        raise ValueError(f"preprocessing must be a Preprocessing, got {told['preprocessing']!r}")
    found = read_network(source, **told)
    for note in found.notes:
        warnings.warn(f"{where}: {note}", AssumptionWarning, stacklevel=3)
    if found.dtype == "int8" and dtype not in (None, "int8"):
        raise ValueError(f"{where}: is a network of 8 bits, which cannot be loaded as {dtype!r:.40}")
    if found.whole is None:
        if dtype not in (None, found.dtype) or run["backend"] == "cuda":
            from npmobilenet.onnx.qdq import other_rounding

            reason = (dtype == "int8" and other_rounding(found.graph)) or (
                "is computed in parts, which only a CPU does, in float32 or with the roundings of the file"
            )
            raise ValueError(f"{where}: {reason}")
        from npmobilenet.onnx_model import OnnxModel

        return OnnxModel(found, **run)
    graph, weights = found.whole.part.graph, found.whole.part.weights
    if graph.is_quantised:
        refuse_cuda(run["backend"])
        dtype = "int8"
    elif dtype == "int8":
        refuse_cuda(run["backend"])
        graph, weights = quantised_graph(graph, weights, found.preprocessing, found.provenance, where)
    return Model(
        graph,
        weights,
        architecture=_named(found.architecture or printable(Path(source).stem), graph),
        classes=found.classes,
        multi_label=found.multi_label,
        preprocessing=found.preprocessing,
        dtype=dtype or "float32",
        provenance=found.provenance,
        input_name=found.graph.inputs[0].name,
        size=found.whole.size,
        channels_last=found.whole.channels_last,
        **run,
    )


def _named(architecture: str, graph: Graph) -> str:
    """A name for a network of whoever; that of a detector only if it has a detector's outputs."""
    from npmobilenet.architectures import get_architecture
    from npmobilenet.tasks.detection import DETECTORS

    if architecture not in DETECTORS:
        return architecture
    known, given = (
        [(name, one.channels_of(node) * ("scores" not in name)) for name, node in one.output_nodes.items()]
        for one in (get_architecture(architecture).graph(), graph)
    )
    return architecture if given == known else f"{architecture}, without its outputs"


def _refuse_options(source: str, **options: Any) -> None:
    """What cannot be said of a file in which the whole network stands."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{source}: holds a whole network, whose {given[0]} cannot be chosen any more")
