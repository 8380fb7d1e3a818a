"""A network with its weights: :class:`Model`; and the same in 8 bits, :func:`quantize`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from npmobilenet.backends import DEFAULT
from npmobilenet.dlpack import host_array
from npmobilenet.engine import NO_INT8_ON_CUDA, Engine
from npmobilenet.errors import AssumptionWarning, CheckpointError, FallbackWarning
from npmobilenet.image.network_input import place_of, preprocess
from npmobilenet.image.preprocessing import IMAGENET
from npmobilenet.image.reading import read_image
from npmobilenet.kernels.tensor import FLOAT32
from npmobilenet.labels import class_names, detector_classes
from npmobilenet.machine import available_cpus
from npmobilenet.provenance import Provenance
from npmobilenet.text import dimensions, listed, printable, quote, shown

if TYPE_CHECKING:
    from npmobilenet.architectures import Architecture
    from npmobilenet.checkpoints.file_names import FileNames
    from npmobilenet.counts import Counts
    from npmobilenet.cuda.arrays import DeviceArray
    from npmobilenet.graph import Graph
    from npmobilenet.image import ImageSource, Preprocessing
    from npmobilenet.kernels.geometry import Pair
    from npmobilenet.passes_rounded import Rounded
    from npmobilenet.tasks.boxes import Detector
    from npmobilenet.tasks.detection import Detection
    from npmobilenet.tasks.segmentation import Segmentation

IMAGES_AT_ONCE = 32  # of a long list, so that its memory does not grow with its length


class Prediction(NamedTuple):
    """One class and how probable the network holds it to be."""

    label: str
    probability: float
    index: int


class Model:
    """A network with its weights. Make one with :func:`load`.

    May be called from several Python threads at once, and pickled; results are the same bit for bit for any
    number of threads and any split into batches. On a GPU they are in every run of one batch size.

    Attributes
    ----------
    architecture : str
    width : float
    classes : tuple of str
        Names of the outputs; none if the weights have no classifier.
    multi_label : bool
        Whether each output has a probability of its own.
    preprocessing : Preprocessing
        How a photograph becomes an input.
    graph : Graph
    definition : Architecture or None
        The network's table, as its weights' publisher builds it.
    names : FileNames or None
        What the file of the weights calls its layers.
    provenance : Provenance
        What was decided when the weights were loaded: name to (value, reason).
    backend : str
        What computes it: of "auto" the one that it has come to, "blocked" or "plain".
    dtype : str
    threads : int
        Default number of threads.
    source : str
        Where the weights came from.
    read_from : str
        Which of several state dicts in that file they are, such as "state_dict_ema"; empty if there was only one.
    input_name : str
        What :meth:`run` calls the image.
    size : (int, int) or None
        The only height and width that the network takes, if its file fixes them.
    channels_last : bool
        Whether :meth:`run` takes the image as (N, H, W, C), for so the file has it.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, np.ndarray],
        *,
        architecture: str,
        width: float = 1.0,
        classes: Sequence[str] | None = None,
        multi_label: bool = False,
        preprocessing: Preprocessing | None = None,
        threads: int | None = None,
        backend: str = DEFAULT,
        dtype: str = "float32",
        keep_bytes: int | None = None,
        source: str = "",
        definition: Architecture | None = None,
        names: FileNames | None = None,
        provenance: Provenance | None = None,
        read_from: str = "",
        detector: Detector | None = None,
        input_name: str = "",
        size: Pair | None = None,
        channels_last: bool = False,
    ) -> None:
        from npmobilenet.graph import INPUT  # here, for a packed network has no graph

        self.graph = graph
        self._in_channels, self._outputs = graph.in_channels, graph.output_names  # asked in every call
        self.input_name, self.size, self.channels_last = input_name or INPUT, size, channels_last
        self.architecture = architecture
        self.width = width
        self._has_logits = graph.main_output == "logits"
        self._detector = detector
        if not detector and not self._has_logits:
            from npmobilenet.tasks.detection import DETECTORS  # here, as what other tasks need

            known = DETECTORS.get(architecture)
            self._detector = known if known and known.reads(graph) else None
        crop = size or (preprocessing or IMAGENET).crop
        self._segments = graph.main_output == "scores" or (self._has_logits and _scores_pixels(graph, crop))
        outputs = len(classes or ())
        if self._has_logits or self._segments:
            outputs = graph.channels_of(graph.node_of(graph.main_output))
        elif self._detector:
            outputs = self._detector.count_classes(graph)
            classes = detector_classes(outputs) if classes is None else classes
        self.classes = class_names(outputs, classes)
        self.multi_label = multi_label
        self.preprocessing = preprocessing or IMAGENET
        self._cpus = available_cpus()
        self.threads = self._cpus if threads is None else self._thread_count(threads)
        self._asked, self.dtype, self.keep_bytes = backend, dtype, keep_bytes
        self.source, self.read_from = source, read_from
        self.definition, self.names = definition, names
        self.provenance = Provenance() if provenance is None else provenance
        self._weights = dict(weights)
        self._engine = Engine(graph, self._weights, backend, dtype, keep_bytes)
        if self._engine.fallback:
            warnings.warn(self._engine.fallback, FallbackWarning, stacklevel=3)

    @property
    def backend(self) -> str:
        return self._engine.backend

    @property
    def plain_layers(self) -> dict[str, str]:
        """The layers that plain loops compute though the backend is "blocked", and why its kernels do not."""
        return dict(self._engine.plain_layers)

    def __repr__(self) -> str:
        stored = "" if self.dtype == "float32" else f"dtype={self.dtype!r} "
        which = f" ({printable(self.read_from)})" if self.read_from else ""
        plain = list(self._engine.plain_layers)
        stored += f"(plain loops: {', '.join(listed(plain, 3))}) " if plain else ""
        return (
            f"<npmobilenet.Model {self.architecture} width={self.width:g} classes={len(self.classes)} "
            f"backend={self.backend!r} {stored}threads={self.threads} from {quote(self.source, 500)}{which}>"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_engine"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cpus = 1  # of this machine: looked at when more threads are asked for
        self._engine = Engine(self.graph, self._weights, self._asked, self.dtype, self.keep_bytes)

    @property
    def blocks(self) -> list[str]:
        """Names of the blocks, for :meth:`features`."""
        return list(self.graph.blocks)

    def __call__(self, x: np.ndarray | Any, *, threads: int | None = None) -> np.ndarray | DeviceArray:
        """Compute the logits.

        Parameters
        ----------
        x : float array (N, 3, H, W)
            RGB, normalised as the weights expect (:meth:`preprocess`); any height and width. NumPy's, or any in the
            host's memory that knows DLPack, such as a PyTorch tensor: not copied. With the backend "cuda" also an
            array on the GPU: a PyTorch tensor, a CuPy array or whatever has ``__cuda_array_interface__``.
        threads : int, optional
            For this call; the model's default if None. A GPU needs none.

        Returns
        -------
        float32 array (N, classes); (N, classes, H, W) of a network that scores every pixel
            Logits; of the selfie segmentation, which ends with a sigmoid, probabilities.
            Of an array on the GPU: a :class:`~npmobilenet.cuda.arrays.DeviceArray` of the model's dtype, on the GPU.
            PyTorch and CuPy take it without a copy (``torch.as_tensor(y, device="cuda")``).
            Of a detector: what :meth:`run` gives. Of any other network with one output, in an ONNX file: that one.

        Raises
        ------
        ValueError
            If the array is not of that kind, or the weights have no classifier.
        """
        if self._detector:
            return self._detector.collect(self._run(x, self._outputs, threads))
        if not self._has_logits and not self._segments and len(self.graph.outputs) != 1:
            self.require_classifier()
        return self._run(x, None, threads)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the network's outputs, as :meth:`run` gives them: ``("logits",)`` of a classifier."""
        return self._detector.outputs if self._detector else self._outputs

    def run(
        self, inputs: Mapping[str, np.ndarray | Any], *, threads: int | None = None
    ) -> dict[str, np.ndarray | DeviceArray]:
        """Compute all outputs of the network, whichever it has.

        Parameters
        ----------
        inputs : mapping
            ``{"input": x}``, as for a call; of an ONNX file the name that it gives, :attr:`input_name`, and images as
            it has them, (N, H, W, C) if :attr:`channels_last`.
        threads : int, optional

        Returns
        -------
        dict of str to float32 array
            By :attr:`output_names`, in that order.

        Raises
        ------
        ValueError
            If there is another input, or the array is not of that kind.
        """
        if set(inputs) != {self.input_name}:
            given = ", ".join(map(quote, inputs)) or "none"
            raise ValueError(f"the network has one input, {quote(self.input_name)}, got {given}")
        x = inputs[self.input_name]
        if self.channels_last:
            x = channels_first(self.input_name, x, self._in_channels)
        outputs = self._run(x, self._outputs, threads)
        return self._detector.collect(outputs) if self._detector else outputs

    def outputs(
        self, x: np.ndarray | Any, names: Sequence[str], *, threads: int | None = None
    ) -> dict[str, np.ndarray | DeviceArray]:
        """Compute several outputs: of the network, of blocks, or of layers.

        Parameters
        ----------
        x : float array (N, 3, H, W)
            As for a call.
        names : sequence of str
            Such as ``["block3", "block13.expand", "logits"]``: each one of :attr:`output_names`, or as for
            :meth:`features`.
        threads : int, optional

        Returns
        -------
        dict of str to float32 array (N, C, P, Q) or (N, C)
            In the order of the names. Where and of which type: as for a call.

        Raises
        ------
        ValueError
            If the array is not of that kind or there is no such output; the message lists the nearest.
        """
        if isinstance(names, str):
            raise ValueError(f"names must be a list, such as [{quote(names)}], got {quote(names)}")
        return self._run(x, tuple(names), threads)

    def features(
        self, x: np.ndarray | Any, block: str = "pool", *, threads: int | None = None
    ) -> np.ndarray | DeviceArray:
        """Compute the output of a block: the pooled features, or a feature map.

        Parameters
        ----------
        x : float array (N, 3, H, W)
            As for a call.
        block : str
            One of :attr:`blocks`, or a layer inside a block such as ``"block3.depthwise"`` (after its batch
            norm and activation).
        threads : int, optional

        Returns
        -------
        float32 array (N, C) after the pooling, (N, C, P, Q) before
            Where and of which type: as for a call. On the GPU channels lie next to each other (``channels_last``).

        Raises
        ------
        ValueError
            If the array is not of that kind or there is no such block.
        """
        return self._run(x, block, threads)

    def require_classifier(self) -> None:
        """Raise an error unless the network has logits of classes, of a whole photograph."""
        if self._has_logits and self._segments:
            raise CheckpointError(
                f"{printable(self.source)}: scores every pixel, and no class of a whole photograph; "
                "segment(photo) says what its pixels show"
            )
        if not self._has_logits:
            gives = "features(x) gives what one would read"
            if self._detector or self.graph.outputs:
                gives = f"run({{{quote(self.input_name)}: x}}) gives {', '.join(self.output_names)}"
            raise CheckpointError(f"{printable(self.source)}: has no classifier, so that there are no logits; {gives}")

    def _run(self, x: np.ndarray | Any, output: str | tuple[str, ...] | None, threads: int | None) -> Any:
        x = checked_input(x, self._in_channels, self._asked)
        if self.size is not None and tuple(x.shape[2:]) != self.size:
            raise ValueError(f"the file fixes images to {dimensions(self.size)}, got {dimensions(x.shape[2:])}")
        threads = self.threads if threads is None else threads
        if type(threads) is not int or not 0 < threads <= self._cpus:
            threads = self._thread_count(threads)
        if isinstance(output, tuple):
            return self._engine.outputs(x, output, threads)
        return self._engine.run(x, threads, output)

    def _thread_count(self, threads: int) -> int:
        """As many as were asked for, but no more than there are CPUs: others would only get in each other's way."""
        threads = _checked_threads(threads)
        if threads > self._cpus:
            self._cpus = available_cpus()  # asked again: they may be more by now, or another machine's
            if threads > 2 * self._cpus:
                there_are = "1 CPU" if self._cpus == 1 else f"{self._cpus} CPUs"
                warnings.warn(
                    f"threads={threads}, but this process may use {there_are}: so many are used", stacklevel=4
                )
        return min(threads, self._cpus)

    def release(self) -> None:
        """Let go of the working memory that is kept between calls (`keep_bytes`); the next call takes it anew."""
        self._engine.release()

    def stored(self, dtype: str | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return what `export_weights` writes: the parameters by their names, and the metadata.

        With ``dtype="int8"`` those of the quantised network (:func:`quantize`).
        """
        if dtype == "int8" and self.dtype != "int8":
            return quantize(self).stored()
        if self.dtype == "int8" and dtype not in (None, "int8"):
            raise ValueError(f"the model is of 8 bits, and cannot be stored as {dtype!r:.40}")
        from npmobilenet.checkpoints.info import WeightsInfo
        from npmobilenet.checkpoints.network_file import described

        about = WeightsInfo(
            preprocessing=self.preprocessing, classes=self.classes or None, multi_label=self.multi_label or None
        )
        heads = getattr(self._detector, "heads", ())
        return dict(self._weights), about.to_dict() | described(self.graph, self.architecture, self.width, heads)

    def rounded(self, images: Sequence[ImageSource] | None = None) -> Rounded:
        """Return the network with roundings to 8 bits as other runtimes compute them: what `export_onnx` writes.

        Parameters, errors and warnings are those of :func:`quantize`.
        """
        from npmobilenet.quantisation import with_roundings  # few ask for it

        photographs = self._photographs(images)
        made, known_from = with_roundings(self.graph, self._weights, self.preprocessing, photographs)
        _warn_of_ranges(printable(self.source), known_from, "export_onnx(model, path, dtype='int8', images=[...])", 3)
        return made

    def _photographs(self, images: Sequence[ImageSource] | None) -> list[np.ndarray] | None:
        """Photographs that ranges are found in, as inputs."""
        if images is not None and (not isinstance(images, (list, tuple)) or not images):
            raise ValueError("images must be a list of at least one photograph, or None")
        return None if images is None else [self.preprocess(image) for image in images]

    def preprocess(self, image: ImageSource) -> np.ndarray:
        """Turn a photograph into an input.

        Parameters
        ----------
        image : path, bytes, file object, PIL image or uint8 array (H, W, 3)

        Returns
        -------
        float32 array (3, H, W)
            ``model(x[None])`` takes it as a batch of one.
        """
        return preprocess(read_image(image, decode=self.preprocessing.decode), self.preprocessing)

    def classify(
        self, images: ImageSource | Sequence[ImageSource], top: int = 5, *, threads: int | None = None
    ) -> list[Prediction] | list[list[Prediction]]:
        """Name what photographs show.

        Parameters
        ----------
        images : photograph, or list of photographs
            Each a path, bytes, a file object, a PIL image or a uint8 array (H, W, 3), RGB. Files need Pillow
            (``pip install "npmobilenet[image]"``), arrays do not.
        top : int
            How many classes to return, the most probable first.
        threads : int, optional

        Returns
        -------
        list of Prediction, or a list of these lists if a list was given

        Raises
        ------
        ImageError
            If something cannot be read as an image.
        """
        if not (isinstance(top, (int, np.integer)) and top >= 1):
            raise ValueError(f"top must be an integer >= 1, got {top!r}")
        self.require_classifier()
        if not isinstance(images, (list, tuple)):
            return self.classify([images], top, threads=threads)[0]
        predictions = []
        for start in range(0, len(images), IMAGES_AT_ONCE):
            batch = np.stack([self.preprocess(image) for image in images[start : start + IMAGES_AT_ONCE]])
            predictions += self.top(self(batch, threads=threads), top)
        return predictions

    def detect(
        self, images: ImageSource | Sequence[ImageSource], threshold: float = 0.5, *, threads: int | None = None
    ) -> list[Detection] | list[list[Detection]]:
        """Find things in photographs, and where they are.

        Parameters
        ----------
        images : photograph, or list of photographs
            As for :meth:`classify`.
        threshold : float
            From 0 to 1: things with lower scores are left out.
        threads : int, optional

        Returns
        -------
        list of Detection, or a list of these lists if a list was given
            The surest first; boxes are in pixels of the photograph as a viewer shows it.

        Raises
        ------
        ImageError
            If something cannot be read as an image.
        CheckpointError
            If the network is no detector.
        """
        checked_threshold(threshold)
        self.require_detector()
        if not isinstance(images, (list, tuple)):
            return self.detect([images], threshold, threads=threads)[0]
        found = []
        for start in range(0, len(images), IMAGES_AT_ONCE):
            pictures = [
                read_image(one, decode=self.preprocessing.decode) for one in images[start : start + IMAGES_AT_ONCE]
            ]
            batch = np.stack([preprocess(picture, self.preprocessing) for picture in pictures])
            found += self.detections(batch, [picture.shape[:2] for picture in pictures], threshold, threads=threads)
        return found

    def detections(
        self, x: np.ndarray, sizes: Sequence[tuple[int, int]], threshold: float = 0.5, *, threads: int | None = None
    ) -> list[list[Detection]]:
        """Find things in a batch of inputs, made of photographs of (height, width); see :meth:`detect`."""
        from npmobilenet.tasks.boxes import Place
        from npmobilenet.tasks.detection import detections

        self.require_detector()
        checked_sizes(len(x), sizes)
        outputs = self._run(x, self._outputs, threads)
        places = [Place(*place_of(*size, self.preprocessing)) for size in sizes]
        return detections(self._detector.find(outputs, threshold), self.classes, sizes, places)

    def require_detector(self) -> None:
        """Raise an error unless the network finds boxes, in whole photographs."""
        if not self._detector:
            from npmobilenet.tasks.detection import DETECTORS

            raise CheckpointError(
                f"{printable(self.source)}: {self.architecture} finds no boxes; what does: {', '.join(DETECTORS)}"
            )
        if not self.preprocessing.whole:
            raise ValueError(
                f"{printable(self.source)}: boxes are found in whole photographs, and this preprocessing cuts a part "
                f"out: preprocessing with resize=None and crop={self.preprocessing.crop}"
            )

    def segment(
        self, images: ImageSource | Sequence[ImageSource], *, threads: int | None = None
    ) -> Segmentation | list[Segmentation]:
        """Say of every pixel of photographs what it shows.

        Parameters
        ----------
        images : photograph, or list of photographs
            As for :meth:`classify`.
        threads : int, optional

        Returns
        -------
        Segmentation, or a list of them if a list was given
            As large as the photograph as a viewer shows it.

        Raises
        ------
        ImageError
            If something cannot be read as an image.
        CheckpointError
            If the network has no scores for every pixel.
        """
        self.require_segmenter()
        if not isinstance(images, (list, tuple)):
            return self.segment([images], threads=threads)[0]
        found = []
        for image in images:
            picture = read_image(image, decode=self.preprocessing.decode)
            found += self.segmentations([self.whole_input(picture)], [picture.shape[:2]], threads=threads)
        return found

    def whole_input(self, picture: np.ndarray) -> np.ndarray:
        """Turn all of a picture, uint8 (H, W, 3), into an input for :meth:`segmentations`: float32 (3, height, width).

        In the picture's proportions, where the preprocessing would cut out the centre.
        """
        return preprocess(picture, self.preprocessing.uncropped(*picture.shape[:2]))

    def segmentations(
        self, inputs: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]], *, threads: int | None = None
    ) -> list[Segmentation]:
        """Say what the pixels of photographs of (height, width) show, whose inputs these are; see :meth:`segment`."""
        from npmobilenet.tasks.segmentation import probabilities, segmentation

        self.require_segmenter()
        checked_sizes(len(inputs), sizes)
        found: list[Segmentation] = []
        for _, same in groupby(zip(inputs, sizes, strict=True), key=lambda each: each[0].shape):
            batch, shapes = zip(*same, strict=True)
            scores = self._run(np.stack(batch), None, threads)
            grids = probabilities(scores) if self._has_logits else scores
            found += [segmentation(grid, self.classes, size) for grid, size in zip(grids, shapes, strict=True)]
        return found

    def require_segmenter(self) -> None:
        """Raise an error unless the network has scores for every pixel."""
        if not self._segments:
            raise CheckpointError(
                f"{printable(self.source)}: {self.architecture} has no scores for every pixel; what has: "
                f"selfie_segmentation, and checkpoints of LR-ASPP and DeepLab"
            )

    def top(self, logits: np.ndarray, k: int = 5) -> list[list[Prediction]]:
        """Name the ``k`` most probable classes of each row of logits, the most probable first.

        With a single output, or with several labels, an output's probability is its own: the sigmoid.

        Parameters
        ----------
        logits : array (N, classes)
            What calling the model gives, from the GPU too; probabilities are their softmax, computed in float64.

        Raises
        ------
        ValueError
            If the largest logit of a row is no finite number.
        """
        self.require_classifier()
        logits = np.asarray(logits, np.float64)
        if logits.ndim != 2:
            raise CheckpointError(
                f"{printable(self.source)}: classes are named of logits (N, classes), and these have the shape "
                f"{logits.shape}; of a network that scores every pixel model(x) gives the scores"
            )
        highest = logits.max(axis=1, keepdims=True)
        if not np.isfinite(highest).all():
            row = int(np.argmin(np.isfinite(highest[:, 0])))
            where = f" of row {row}" if len(logits) > 1 else ""
            raise ValueError(
                f"no class can be named: the largest logit{where} is {highest[row, 0]}; weights or input are damaged, "
                "or too large for float32"
            )
        if self.multi_label or len(self.classes) == 1:
            probabilities = np.exp(-np.logaddexp(0, -logits))  # the sigmoid, without overflow
        else:
            powers = np.exp(logits - highest)
            probabilities = powers / powers.sum(axis=1, keepdims=True)
        best = [(row, _largest(row, k)) for row in probabilities]
        return [
            [
                Prediction(self.classes[i] if self.classes else f"class {i}", probability, i)
                for i, probability in zip(where.tolist(), row[where].tolist(), strict=True)
            ]
            for row, where in best
        ]

    def count(self, height: int | None = None, width: int | None = None) -> Counts:
        """Count parameters, multiply-adds and memory, for the weights' own image size by default."""
        from npmobilenet.counts import count  # few ask for it

        size = self.preprocessing.crop
        return count(self.graph, (height or size[0], width or height or size[1]))


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Where the k largest values are, the largest first and equal ones in their order; no others are sorted."""
    if k < len(values):
        candidates = np.flatnonzero(values >= np.partition(values, -k)[-k])
    else:
        candidates = np.arange(len(values))
    return candidates[np.argsort(-values[candidates], kind="stable")[:k]]


def quantize(model: Model, *, images: Sequence[ImageSource] | None = None, weight_bits: int = 8) -> Model:
    """Return the same network in 8 bits: less memory, and faster where the CPU has instructions for it.

    Nothing but the weights is needed. The statistics of the batch norms tell the range of every channel, and what
    rounding the weights would add to its mean. Where the publisher has folded them into the convolutions, photographs
    tell; one is enough.

    Parameters
    ----------
    model : Model
        Of float32, on any backend but "cuda".
    images : sequence of photographs, optional
        As for :meth:`Model.classify`.
    weight_bits : int
        Of most weights, 4 to 8.

    Returns
    -------
    Model

    Raises
    ------
    ValueError
        If the model is of 8 bits already or of float16, has nothing to be quantised, or an option is out of range.

    Warns
    -----
    AssumptionWarning
        If there are neither statistics nor photographs, so that what they tell is found in images that are made up.
    """
    if not isinstance(model, Model):
        raise ValueError(f"model must be a Model, such as npmobilenet.load() returns, got {type(model).__name__}")
    refuse_cuda(model.backend)
    photographs = model._photographs(images)
    provenance = Provenance(model.provenance)
    graph, weights = quantised_graph(
        model.graph, model._weights, model.preprocessing, provenance, printable(model.source), photographs, weight_bits
    )
    return Model(
        graph,
        weights,
        architecture=model.architecture,
        width=model.width,
        classes=model.classes or None,
        multi_label=model.multi_label,
        preprocessing=model.preprocessing,
        threads=model.threads,
        backend=model._asked,
        dtype="int8",
        keep_bytes=model.keep_bytes,
        source=model.source,
        definition=model.definition,
        provenance=provenance,
        read_from=model.read_from,
        detector=model._detector if model.graph.output_names[0] != "boxes0" else None,
        input_name=model.input_name,
        size=model.size,
        channels_last=model.channels_last,
    )


def quantised_graph(
    graph: Graph,
    weights: Mapping[str, np.ndarray],
    preprocessing: Preprocessing,
    provenance: Provenance,
    source: str,
    images: Sequence[np.ndarray] | None = None,
    weight_bits: int = 8,
) -> tuple[Graph, dict[str, np.ndarray]]:
    """The network in 8 bits; what its ranges come from is noted, and said where nobody vouches for it."""
    from npmobilenet.quantisation import quantised  # few ask for it

    made = quantised(graph, weights, preprocessing, images, weight_bits)
    provenance["quantisation"] = made.known_from
    _warn_of_ranges(source, made.known_from, "quantize(model, images=[...])", 5)
    return made.graph, made.weights


def _warn_of_ranges(source: str, known_from: tuple[str, str], better: str, stacklevel: int) -> None:
    """Say it where nobody vouches for ranges, and what takes photographs."""
    if known_from[1] == "assumed":
        note = f"{source}: no batch norm tells what values the network has: found in {known_from[0]}"
        warnings.warn(f"{note}; npmobilenet.{better} takes photographs", AssumptionWarning, stacklevel=stacklevel)


def _scores_pixels(graph: Graph, size: Pair) -> bool:
    """Whether logits are those of pixels."""
    if "classifier" in graph.blocks:
        return False
    try:
        return len(graph.shapes(size)[graph.node_of(graph.main_output)]) > 1
    except ValueError:  # not of this size
        return True


def refuse_cuda(backend: str) -> None:
    if backend == "cuda":
        raise ValueError(NO_INT8_ON_CUDA)


def checked_threshold(threshold: float) -> None:
    """Refuse what is no threshold of scores."""
    if not (isinstance(threshold, (int, float, np.number)) and 0 <= threshold <= 1):
        raise ValueError(f"threshold must be a number from 0 to 1, got {threshold!r}")


def checked_sizes(count: int, sizes: Sequence[tuple[int, int]]) -> None:
    """Refuse what are no sizes of so many photographs."""
    right = [len(size) == 2 and min(size) >= 1 for size in sizes]
    if len(right) != count or not all(right):
        raise ValueError(f"sizes must be (height, width) of the photographs of all {count} inputs, got {shown(sizes)}")


def _checked_threads(threads: int) -> int:
    if type(threads) is int and threads >= 1:
        return threads
    if isinstance(threads, (int, np.integer)) and not isinstance(threads, bool) and threads >= 1:
        return int(threads)
    raise ValueError(f"threads must be an integer >= 1, got {threads!r}")


def channels_first(name: str, x: np.ndarray | Any, channels: int) -> np.ndarray:
    """Return images (N, H, W, C), which a file has so, as (N, C, H, W).

    Raises
    ------
    ValueError
        If they are none.
    """
    x = host_array(x)
    if x.ndim != 4 or x.shape[3] != channels:
        raise ValueError(f"the input {quote(name)} must be a float array (N, H, W, {channels}), got {x.shape}")
    return x.transpose(0, 3, 1, 2)


def checked_input(x: np.ndarray | Any, channels: int, backend: str) -> np.ndarray | DeviceArray:
    """Return a batch as a network of so many channels takes it: float32, on the device if it lies there.

    Raises
    ------
    ValueError
        If it is none.
    """
    if type(x) is np.ndarray and x.dtype is FLOAT32:  # as it should be, most often: asked first, and little
        shape = x.shape
        if len(shape) == 4 and shape[1] == channels and shape[2] and shape[3]:
            return x
    on_device = hasattr(x, "__cuda_array_interface__")
    if on_device and backend != "cuda":
        raise ValueError(
            f"x lies on a GPU and the model runs on the backend {backend!r}: load it with backend='cuda', or copy x to "
            "the host"
        )
    if on_device:
        from npmobilenet.cuda.arrays import DeviceArray

        x = DeviceArray.of(x)
    else:
        x = host_array(x)
    expected = f"x must be a float array (N, {channels}, H, W)"
    if x.dtype.kind != "f":
        raise ValueError(
            f"{expected}, normalised; got {x.dtype}. For photographs as uint8 arrays use model.classify or "
            f"model.preprocess"
        )
    if x.ndim == 3 and x.shape[0] == channels:
        raise ValueError(f"{expected}, got {x.shape}: a single image is a batch of one, x[None]")
    if x.ndim == 4 and x.shape[1] != channels and x.shape[3] == channels:
        raise ValueError(f"{expected}, got {x.shape}: channels come first, x.transpose(0, 3, 1, 2)")
    if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape[2:]:
        raise ValueError(f"{expected}, got {x.shape}")
    return x if on_device else x.astype(np.float32, copy=False)
