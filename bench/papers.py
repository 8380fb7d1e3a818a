"""What the papers print of their networks, beside what counting ours gives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from npmobilenet.architectures import get_architecture
from npmobilenet.counts import Counts, count


@dataclass(frozen=True)
class Published:
    """A row of a paper's table.

    Attributes
    ----------
    row : str
        What the paper calls it.
    top1 : float
        Percent, on ImageNet's validation set.
    macs, parameters : float
        In millions, as printed.
    note : str
        Why the count is another number, where it is.
    """

    row: str
    architecture: str
    width: float
    size: int
    top1: float
    macs: float
    parameters: float
    note: str = ""

    @cached_property
    def counts(self) -> Counts:
        """Our count."""
        return count(get_architecture(self.architecture).graph(self.width), (self.size, self.size))


TABLES: dict[str, tuple[Published, ...]] = {
    "MobileNetV1 (1704.04861), Table 4: depthwise separable against full convolutions": (
        Published("Conv MobileNet", "mobilenet_v1_dense", 1.0, 224, 71.7, 4866, 29.3),
        Published("MobileNet", "mobilenet_v1", 1.0, 224, 70.6, 569, 4.2),
    ),
    "MobileNetV1, Table 5: narrow against shallow": (
        Published("0.75 MobileNet", "mobilenet_v1", 0.75, 224, 68.4, 325, 2.6),
        Published("Shallow MobileNet", "mobilenet_v1_shallow", 1.0, 224, 65.3, 307, 2.9),
    ),
    "MobileNetV1, Table 6: the width multiplier": (
        Published("1.0 MobileNet-224", "mobilenet_v1", 1.0, 224, 70.6, 569, 4.2),
        Published("0.75 MobileNet-224", "mobilenet_v1", 0.75, 224, 68.4, 325, 2.6),
        Published("0.5 MobileNet-224", "mobilenet_v1", 0.5, 224, 63.7, 149, 1.3),
        Published("0.25 MobileNet-224", "mobilenet_v1", 0.25, 224, 50.6, 41, 0.5),
    ),
    "MobileNetV1, Table 7: the resolution multiplier": (
        Published("1.0 MobileNet-224", "mobilenet_v1", 1.0, 224, 70.6, 569, 4.2),
        Published("1.0 MobileNet-192", "mobilenet_v1", 1.0, 192, 69.1, 418, 4.2),
        Published("1.0 MobileNet-160", "mobilenet_v1", 1.0, 160, 67.2, 290, 4.2),
        Published("1.0 MobileNet-128", "mobilenet_v1", 1.0, 128, 64.4, 186, 4.2),
    ),
    "MobileNetV2 (1801.04381), Table 4": (
        Published("MobileNetV1", "mobilenet_v1", 1.0, 224, 70.6, 575, 4.2, "569 in its own paper"),
        Published("MobileNetV2", "mobilenet_v2", 1.0, 224, 72.0, 300, 3.4),
        Published(
            *("MobileNetV2 (1.4)", "mobilenet_v2", 1.4, 224, 74.7, 585, 6.9),
            "the authors' own list of checkpoints has 582 and 6.06",
        ),
    ),
    "MixNet (1907.09595)": tuple(
        Published(*row, "the paper counts more than multiply-adds") for row in (
            ("MixNet-S", "mixnet_s", 1.0, 224, 75.8, 256, 4.1),
            ("MixNet-M", "mixnet_m", 1.0, 224, 77.0, 360, 5.0),
            ("MixNet-L", "mixnet_l", 1.0, 224, 78.9, 565, 7.3),
        )
    ),
}  # fmt: skip
