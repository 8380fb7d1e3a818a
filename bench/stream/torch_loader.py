"""The usual script, as somebody writes it who knows both libraries: PyTorch's DataLoader decodes, onnxruntime computes.

    python torch_loader.py LIST NETWORK.onnx --workers 2 --threads 1

Worker processes read, decode and prepare photographs by torchvision's transforms (Pillow decodes); the main process
runs the network in batches and names five classes of each. Nothing of npmobilenet is imported. Prints a line of JSON:
images, and seconds from when all is loaded to the last result.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image

BATCH = 32


def transforms():
    """torchvision's; its compiled operators, which some builds lack, are not needed here."""
    library = torch.library.Library("torchvision", "DEF")
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        try:
            library.define(schema)
        except RuntimeError:  # it has them
            break
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )


class Photographs(torch.utils.data.Dataset):
    """Files, prepared."""

    def __init__(self, names: list[str]) -> None:
        self.names, self.transform = names, transforms()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.names[index]) as image:
            return self.transform(image if image.mode == "RGB" else image.convert("RGB"))


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("list", type=Path)
    parser.add_argument("network", type=Path)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    about = onnxruntime.SessionOptions()
    about.intra_op_num_threads = options.threads
    # Threads that wait in a loop for the next batch would take the workers' cores.
    about.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(options.network), about, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    loader = torch.utils.data.DataLoader(
        Photographs(options.list.read_text().splitlines()), BATCH, num_workers=options.workers, prefetch_factor=4
    )
    best: list[list[int]] = []
    session.run(None, {name: np.zeros((BATCH, 3, 224, 224), np.float32)})
    start = time.perf_counter()
    for batch in loader:
        (logits,) = session.run(None, {name: batch.numpy()})
        probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        best += np.argsort(-probabilities, axis=1)[:, :5].tolist()
    print(json.dumps({"images": len(best), "seconds": time.perf_counter() - start, "first": best[0]}))


if __name__ == "__main__":
    main()
