"""A network of 8 bits for every runtime, quantised by the runtime's own tools, all from the same photographs.

onnxruntime: its static quantisation, QDQ, a scale for each channel of the weights. OpenVINO: NNCF's quantisation after
training. LiteRT: `tflite_int8`. This package: `npmobilenet.load` with ``dtype="int8"``, which asks for no photograph.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from npmobilenet.bench.agreement import agreement_of, crops, photographs_in
from npmobilenet.bench.peers.networks import Network
from npmobilenet.bench.peers.workers import PeerError
from npmobilenet.bench.runtimes import together
from npmobilenet.checkpoints import export_weights
from npmobilenet.errors import AssumptionWarning
from npmobilenet.image import preprocess
from npmobilenet.loading import load

if TYPE_CHECKING:
    import onnx

PHOTOGRAPHS = Path(__file__).parents[2] / "tests" / "data" / "images"  # of a checkout
CALIBRATION, CALIBRATION_SEED, INPUT_SEED = 32, 0, 1  # crops, of other places than those that are measured
LEAST_DECIBELS = 3.0  # of what computes the same network


@dataclass(frozen=True)
class Int8Network(Network):
    """The same in 8 bits; its inputs are crops of photographs."""

    photographs: Path = PHOTOGRAPHS
    dtype: ClassVar = "int8"

    @property
    def title(self) -> str:
        return f"{self.name} int8"

    def crops(self, count: int, seed: int) -> np.ndarray:
        """Return so many crops of the photographs, as the network takes them.

        Raises
        ------
        ValueError
            If there are no photographs.
        """
        paths, size = photographs_in(self.photographs), (self.size, self.size)
        preprocessing = replace(self.model.preprocessing, resize=size, crop=size, crop_fraction=None)
        return np.stack([preprocess(crop, preprocessing) for crop in crops(paths, count, seed)])

    @cached_property
    def calibration(self) -> np.ndarray:
        """What ranges are found in: (N, 3, H, W)."""
        return self.crops(CALIBRATION, CALIBRATION_SEED)

    def input(self, batch: int) -> Path:
        path = self.folder / f"{self.name}-{batch}.npy"
        if not path.exists():
            np.save(path, self.crops(batch, INPUT_SEED))
        return path

    def float32_file(self, suffix: str, batch: int) -> Path:
        """The file that it is made from."""
        return super().file(suffix, batch)

    def file(self, suffix: str, batch: int) -> Path:
        path = self.folder / f"{self.name}-{batch}{suffix}"
        if not path.exists():
            MAKERS[suffix](self, batch, path)
        return path

    def agreement(self, result: np.ndarray, batch: int) -> dict:
        """How near a result is to that of float32: ``decibels``, and ``same``, the share of equal classes
        where the weights are real ones.

        Raises
        ------
        PeerError
            If it is another network's.
        """
        computed = self.model.outputs(np.load(self.input(batch)), self.model.graph.output_names)
        exact = together(list(computed.values()), channels_last=False)
        if result.shape != exact.shape:
            raise PeerError(f"its output has shape {result.shape}, not {exact.shape}")
        found = agreement_of(self.name, exact, result)
        if not found.decibels >= LEAST_DECIBELS:  # so that NaN does not pass
            raise PeerError(f"its output has {found.decibels:.1f} dB against float32: not measured")
        names_classes = self.shipped and exact.shape[1] == len(self.model.classes)
        return {"decibels": found.decibels, "same": found.same if names_classes else None}


@contextmanager
def _silent() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)
        yield


def _npmobilenet(network: Int8Network, batch: int, path: Path) -> None:
    with _silent():
        export_weights(load(network.weights, dtype="int8"), path)


def _onnxruntime(network: Int8Network, batch: int, path: Path) -> None:
    import onnx

    if batch > 1:
        model = onnx.load(network.file(".qdq.onnx", 1))
        _set_batch(model, batch)
        onnx.save(model, path)
        return
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Crops(quantization.CalibrationDataReader):
        crops = iter(network.calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            crop = next(self.crops, None)
            return None if crop is None else {"input": crop[None]}

    prepared = path.with_suffix(".prepared")
    quant_pre_process(str(network.float32_file(".onnx", 1)), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared),
        str(path),
        Crops(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
    )


def _set_batch(model: onnx.ModelProto, batch: int) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]  # shapes between them, which runtimes infer


def _openvino(network: Int8Network, batch: int, path: Path) -> None:
    import openvino

    if batch > 1:
        made = openvino.Core().read_model(network.file(".int8.xml", 1))
        made.reshape([batch, 3, network.size, network.size])
    else:
        import nncf

        nncf.set_log_level("ERROR")
        model = openvino.Core().read_model(network.float32_file(".onnx", 1))
        with redirect_stdout(StringIO()):  # a bar of progress
            made = nncf.quantize(model, nncf.Dataset(list(network.calibration[:, None])), subset_size=CALIBRATION)
    openvino.save_model(made, path, compress_to_fp16=False)


def _litert(network: Int8Network, batch: int, path: Path) -> None:
    from npmobilenet.bench.peers import tflite_int8

    images = network.calibration.transpose(0, 2, 3, 1)
    ranges = tflite_int8.ranges(network.float32_file(".tflite", 1).read_bytes(), images)
    path.write_bytes(tflite_int8.quantised(network.float32_file(".tflite", batch).read_bytes(), ranges))


MAKERS: dict[str, Callable[[Int8Network, int, Path], None]] = {
    ".int8.safetensors": _npmobilenet,
    ".qdq.onnx": _onnxruntime,
    ".int8.xml": _openvino,
    ".int8.tflite": _litert,
}
