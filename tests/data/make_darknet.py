"""Remake reference/darknet.npz: a network in Darknet's two files, with seeded weights, computed by OpenCV.

    python -m tests.data.make_darknet   # where opencv-python-headless<5 is, whose version 4 reads Darknet's files

Made with OpenCV 4.14.0 and NumPy 2.4.6. Of every output a few values are stored, at places that follow from its shape,
and the largest: what the detecting layers read, and what they make of it.
"""

import struct
import tempfile
from pathlib import Path

import numpy as np

VALUES = 64
SIZE = (64, 96)
OUTPUTS = {"layer10": "conv_9", "layer18": "conv_17"}
ANCHORS = "anchors = 4,6,  9,7,  12,20,  25,18,  30,40,  60,50"


def convolution(filters, size=3, stride=1, norm=True, **more):
    """A section, with Darknet's usual activation behind a norm and none else."""
    options = {"filters": filters, "size": size, "stride": stride, "pad": 1, **more}
    options |= {"batch_normalize": 1, "activation": "leaky"} if norm else {"activation": "linear"}
    return section("convolutional", **options)


def section(kind, *lines, **options):
    return "\n".join([f"[{kind}]", *(f"{name}={value}" for name, value in options.items()), *lines, ""])


CFG = "\n".join(
    [
        "# every kind of layer",
        section("net", height=SIZE[0], width=SIZE[1], channels=3, batch=1, learning_rate="0.001"),
        convolution(8),
        convolution(16, stride=2),
        convolution(8, size=1),
        convolution(16),
        section("shortcut", **{"from": -3}, activation="linear"),
        section("maxpool", size=2, stride=2),
        convolution(24, stride=2),
        section("maxpool", size=2, stride=1),
        convolution(32),
        convolution(21, size=1, norm=False),
        section("yolo", ANCHORS, mask="3,4,5", classes=2, num=6),
        section("route", layers=-4),
        convolution(8, size=1),
        section("upsample", stride=2),
        section("route", layers="-1, 5"),
        section("maxpool", size=3, stride=1),
        convolution(24, groups=24),
        convolution(21, size=1, norm=False),
        section("yolo", ANCHORS, mask="0,1,2", classes=2, num=6),
    ]
)
# Input channels for each group, filters, side of the window, whether a norm follows
CONVOLUTIONS = (
    (3, 8, 3, True),
    (8, 16, 3, True),
    (16, 8, 1, True),
    (8, 16, 3, True),
    (16, 24, 3, True),
    (24, 32, 3, True),
    (32, 21, 1, False),
    (24, 8, 1, True),
    (1, 24, 3, True),
    (24, 21, 1, False),
)


def weights(convolutions=CONVOLUTIONS, seed=0):
    """The bytes of a file: its header, then each convolution's numbers."""
    random, parts = np.random.default_rng(seed), []
    for channels, filters, size, norm in convolutions:
        parts.append(random.uniform(-0.5, 0.5, filters))
        if norm:
            parts += [random.uniform(0.5, 1.5, filters), random.uniform(-0.5, 0.5, filters)]
            parts.append(random.uniform(0.5, 1.5, filters))
        parts.append(random.standard_normal(filters * channels * size**2) * np.sqrt(2 / (channels * size**2)))
    return struct.pack("<3iQ", 0, 2, 0, 32013312) + np.concatenate(parts).astype("<f4").tobytes()


def image():
    return np.random.default_rng(1).uniform(0, 1, (1, 3, *SIZE)).astype(np.float32)


def chosen(y):
    """The values of an output that are stored, then the largest magnitude."""
    places = np.random.default_rng(y.size).choice(y.size, min(VALUES, y.size), replace=False)
    return np.append(y.reshape(-1)[places], np.abs(y).max())


def main():
    import cv2

    with tempfile.TemporaryDirectory() as folder:
        cfg, numbers = Path(folder) / "a.cfg", Path(folder) / "a.weights"
        cfg.write_text(CFG)
        numbers.write_bytes(weights())
        net = cv2.dnn.readNetFromDarknet(str(cfg), str(numbers))
    stored = {}
    for ours, theirs in OUTPUTS.items():
        net.setInput(image())
        stored[ours] = chosen(net.forward(theirs))
        net.setInput(image())
        stored[f"{ours}/boxes"] = net.forward(f"yolo_{ours[5:]}")  # (pixels * anchors, 5 + classes), centres and sides
        print(ours, stored[ours][-1], stored[f"{ours}/boxes"].shape)
    np.savez_compressed(Path(__file__).parent / "reference/darknet.npz", **stored)


if __name__ == "__main__":
    main()
