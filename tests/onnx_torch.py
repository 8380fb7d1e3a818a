"""Networks as PyTorch exports them, on this package, as a table between the markers of docs/onnx.md.

python -m tests.onnx_torch docs/onnx.md [NETWORK ...]

Needs ``pip install torch torchvision timm onnx onnxscript``. Of each network, with weights from a seed: files of both
exporters, of one size and of any, against what PyTorch computes in float64, and against its checkpoint on this package.
Of networks that are named the rows alone are made anew.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import npmobilenet
from npmobilenet.bench import markers
from npmobilenet.model import Model
from npmobilenet.onnx_model import OnnxModel
from npmobilenet.passes import fuse

REGION = "tests/onnx_torch.py"
ALLOWED = 1e-4  # of the largest value
ROUNDS = 80  # of timing a file and its checkpoint in turn

TORCHVISION = {
    "MobileNetV2": "mobilenet_v2",
    "MobileNetV3-Large": "mobilenet_v3_large",
    "MobileNetV3-Small": "mobilenet_v3_small",
    "EfficientNet-B0": "efficientnet_b0",
    "MnasNet 1.0": "mnasnet1_0",
    "LR-ASPP on MobileNetV3-Large": "lraspp_mobilenet_v3_large",
    "DeepLabV3 on MobileNetV3-Large": "deeplabv3_mobilenet_v3_large",
    "SSDLite on MobileNetV3-Large, raw": "ssdlite320_mobilenet_v3_large",
    "ResNet-18": "resnet18",
    "SqueezeNet 1.1": "squeezenet1_1",
    "ShuffleNetV2 1.0": "shufflenet_v2_x1_0",
    "RegNetY 400MF": "regnet_y_400mf",
    "DenseNet-121": "densenet121",
}
TIMM = {
    "MobileNetV1": "mobilenetv1_100",
    "MobileNetV2": "mobilenetv2_100",
    "MobileNetV3-Large": "mobilenetv3_large_100",
    "MixNet-S": "mixnet_s",
    "EfficientNet-B0": "efficientnet_b0",
    "EfficientNet-B0, SAME padding": "tf_efficientnet_b0",
    "EfficientNet-Lite0": "efficientnet_lite0",
    "MnasNet-B1": "mnasnet_100",
    "GhostNet 1.0": "ghostnet_100",
}
SOURCES = (("torchvision", TORCHVISION), ("timm", TIMM))
OTHERS = (
    "resnet",
    "squeezenet",
    "shufflenet",
    "regnet",
    "densenet",
    "ghostnet",
    "ssdlite",
)  # without a checkpoint here
SIZES = {"ssdlite320_mobilenet_v3_large": 320, "lraspp_mobilenet_v3_large": 128, "deeplabv3_mobilenet_v3_large": 128}
FIXED = ("ssdlite", "tf_")  # their PyTorch modules put the size into the file


@dataclass
class Row:
    """What came of a network's files."""

    title: str
    files: int = 0
    wrong: dict[str, str] = field(default_factory=dict)
    one_graph: int = 0
    layers: tuple[int, int | None] = (0, None)  # fused: of the file, and of the checkpoint
    error: float = 0.0
    same_bits: bool | None = None
    ratio: float | None = None  # of the times of the file and of the checkpoint

    def cells(self) -> Iterator[str]:
        """The table's columns."""
        yield self.title
        yield f"{self.files - len(self.wrong)} of {self.files}"
        yield "yes" if self.one_graph == self.files else f"of {self.one_graph}"
        yield ", ".join(str(number) for number in self.layers if number)
        yield f"{self.error:.1e}"
        yield {True: "the same", False: "others", None: ""}[self.same_bits]
        yield "" if self.ratio is None else f"{self.ratio:.2f}"


def module(source: str, name: str) -> Any:
    """Build a network of torchvision or timm, with statistics that are not those of an untrained one."""
    import torch

    library = torch.library.Library("torchvision", "DEF")  # two operators that its CPU-only import lacks
    for operator in (
        "nms(Tensor dets, Tensor scores, float t) -> Tensor",
        "qnms(Tensor d, Tensor s, float t) -> Tensor",
    ):
        library.define(operator)
    import timm
    import torchvision

    torch.manual_seed(0)
    if source == "timm":
        network = timm.create_model(name)
    else:
        options = {"weights_backbone": None} if name.startswith(("lraspp", "deeplab", "ssdlite")) else {}
        network = torchvision.models.get_model(name, weights=None, **options)
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            with torch.no_grad():
                for array, low in (
                    (norm.running_mean, -0.5),
                    (norm.running_var, 0.5),
                    (norm.weight, 0.5),
                    (norm.bias, -0.5),
                ):
                    array.copy_(torch.rand(array.shape) + low)
    return (_raw(network) if name.startswith("ssdlite") else network).eval()


def _raw(detector: Any) -> Any:
    """A detector's network alone: no anchors, no choice among boxes."""
    import torch

    class Raw(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = detector.backbone, detector.head

        def forward(self, x: Any) -> tuple[Any, Any]:
            found = self.head(list(self.backbone(x).values()))
            return found["bbox_regression"], found["cls_logits"]

    return Raw()


def exports(network: Any, x: Any, folder: Path, any_size: bool) -> Iterator[tuple[str, Path | Exception]]:
    """Yield files of both exporters, by what they are; the last has batch norms as nodes of their own."""
    import torch

    axes = {0: "batch", 2: "height", 3: "width"} if any_size else {0: "batch"}
    dims = {axis: torch.export.Dim(name, **{"min": 64} if axis else {}) for axis, name in axes.items()}
    kept = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    for title, options in {
        "TorchScript, opset 11": {"dynamo": False, "opset_version": 11},
        "TorchScript, opset 17, any size": {"dynamo": False, "opset_version": 17, "dynamic_axes": {"image": axes}},
        "dynamo, opset 18": {"dynamo": True, "opset_version": 18, "verbose": False},
        "dynamo, opset 20, any size": {
            "dynamo": True, "opset_version": 20, "verbose": False, "dynamic_shapes": (dims,), "external_data": True,
        },
        "TorchScript, norms kept": {"dynamo": False, "opset_version": 17} | kept,
    }.items():  # fmt: skip
        path = folder / f"{title.replace(' ', '_')}.onnx"
        try:
            torch.onnx.export(network, (x,), str(path), input_names=["image"], **options)
        except Exception as error:  # PyTorch's own
            yield title, error
        else:
            yield title, path


def tried(source: str, title: str, name: str) -> Row:
    """Export a network and compute its files."""
    import torch

    row = Row(f"{title} ({source})")
    network, size = module(source, name), SIZES.get(name, 224)
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoint = None
        if not name.startswith(OTHERS):
            torch.save(network.state_dict(), Path(folder) / f"{name}.pth")
            checkpoint = npmobilenet.load(Path(folder) / f"{name}.pth", threads=1)
        files = list(exports(network, x, Path(folder), not name.startswith(FIXED)))
        exact = network.double()(x.double())
        expected = [
            y.numpy()
            for y in (exact.values() if isinstance(exact, dict) else exact if isinstance(exact, tuple) else [exact])
        ]
        for how, path in files:
            row.files += 1
            if isinstance(path, Exception):
                row.wrong[how] = f"PyTorch does not export it: {' '.join(str(path).split())[:80]}"
                continue
            try:
                _compare(row, how, npmobilenet.load(path, threads=1), x.numpy(), expected, checkpoint)
            except ValueError as error:
                row.wrong[how] = str(error).replace(str(path), "it")
    return row


def _compare(
    row: Row, how: str, model: Model, x: np.ndarray, expected: list[np.ndarray], checkpoint: Model | None
) -> None:
    found = list(model.run({model.input_name: x}).values())
    error = max(float(np.abs(y - right).max() / np.abs(right).max()) for y, right in zip(found, expected, strict=True))
    row.error = max(row.error, error)
    if not error <= ALLOWED:
        row.wrong[how] = f"differs by {error:.1e} of the largest value"
    if isinstance(model, OnnxModel):
        return
    row.one_graph += 1
    row.layers = len(fuse(model.graph).nodes), checkpoint and len(fuse(checkpoint.graph).nodes)
    if checkpoint is None:
        return
    if how.endswith("norms kept"):
        others = checkpoint.run({checkpoint.input_name: x}).values()
        row.same_bits = all(np.array_equal(y, other) for y, other in zip(found, others, strict=True))
    elif how.startswith("TorchScript, opset 11"):
        row.ratio = ratio(lambda: model.run({model.input_name: x}), lambda: checkpoint.run({checkpoint.input_name: x}))


def ratio(one: Callable[[], Any], other: Callable[[], Any]) -> float:
    """How much longer one takes than the other, both on one thread, in turn."""
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for run, taken in zip((one, other), times, strict=True):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    return min(times[0]) / min(times[1])


HEAD = ("| network | files right | one graph | fused layers | largest error | norms kept: bits | time |",
        "| --- | --- | --- | --- | --- | --- | --- |")  # fmt: skip


def table(rows: list[Row], before: list[str]) -> Iterator[str]:
    """Yield the lines of the table, and what is not right; of other networks those that were there before."""
    import timm
    import torch
    import torchvision

    versions = (torch.__version__.partition("+")[0], torchvision.__version__.partition("+")[0], timm.__version__)
    yield "PyTorch {}, torchvision {}, timm {}".format(*versions)
    yield ""
    yield from HEAD
    made = {row.title: row for row in rows}
    titles = [f"{title} ({source})" for source, networks in SOURCES for title in networks]
    for title in titles:
        if title in made:
            yield f"| {' | '.join(made[title].cells())} |"
        else:
            yield from (line for line in before if line.startswith(f"| {title} |"))
    yield ""
    for title in titles:
        if title in made:
            yield from (f"- {title}, {how}: {reason}" for how, reason in made[title].wrong.items())
        else:
            yield from (line for line in before if line.startswith(f"- {title}, "))


def main() -> None:
    """Try everything, or the networks named, and write the table."""
    document, *wanted = sys.argv[1:]
    rows = []
    for source, networks in SOURCES:
        for title, name in networks.items():
            if not wanted or name in wanted:
                rows.append(tried(source, title, name))
                print(*rows[-1].cells(), rows[-1].wrong or "", sep=" | ", flush=True)
    if document != "-":
        before = markers.content(Path(document), REGION)
        markers.replace(Path(document), REGION, table(rows, before))


if __name__ == "__main__":
    main()
