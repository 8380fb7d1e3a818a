"""Remake module_values.npz: what every module of PyTorch's networks computes, as docs/checkpoints.md has it saved.

    python -m tests.data.make_module_values

Made with torch 2.13.0 (CPU), torchvision 0.28.0, timm 1.0.31 and NumPy 2.4.6; the weights come from
``npmobilenet.architectures.random_weights``. A small network of torchvision, whose activations compute in place, and
one of timm, whose batch norms have their activations inside; of each the modules before, in and after a few blocks.
"""

import re
from io import BytesIO
from pathlib import Path

import numpy as np

from npmobilenet.architectures import random_weights
from npmobilenet.checkpoints.fit import naming
from tests.data.make_random_networks import torch_module

# name: (architecture, whose implementation, width, classes, (H, W), seed)
NETWORKS = {
    "torchvision": ("mobilenet_v2", "torchvision", 0.1, 3, (5, 7), 1),
    "timm": ("mobilenet_v3_small", "timm", 0.5, 3, (5, 7), 2),
}
LEFT_OUT = r"features\.([5-9]|1[0-7]|18\.[01])\b|blocks\.[345]\b"


def named_weights(name):
    """The weights as their file has them; shared with the test."""
    architecture, source, width, classes, _, seed = NETWORKS[name]
    names = naming(architecture, source)
    graph = names.architecture.graph(width, classes)
    keys = names.keys(graph)
    return {keys[key]: value for key, value in random_weights(graph, seed).items()}


def save_values(model, x, file):
    """Save what every module makes of a batch."""
    values = {"input": x.numpy()}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _m, _i, y, name=name: values.update({name: y.numpy(force=True).copy()}))
    model.eval()(x)
    np.savez(file, **values)


def module_values(name):
    """An input, and what each module makes of it."""
    import torch

    architecture, source, width, classes, size, seed = NETWORKS[name]
    model = torch_module(architecture, source, width, classes, "symmetric", 1e-5)
    state = {key: torch.tensor(value) for key, value in named_weights(name).items()}
    for key, value in model.state_dict().items():  # a linear layer may be a 1x1 convolution
        state[key] = state.get(key, value).reshape(value.shape)
    model.load_state_dict(state)
    x = torch.tensor(np.random.default_rng(seed).standard_normal((1, 3, *size)), dtype=torch.float32)
    with BytesIO() as file:
        save_values(model, x, file)
        file.seek(0)
        with np.load(file) as values:
            return {name: values[name] for name in values if not re.match(LEFT_OUT, name)}


def main():
    made = {f"{name}/{module}": array for name in NETWORKS for module, array in module_values(name).items()}
    np.savez_compressed(Path(__file__).parent / "module_values.npz", **made)


if __name__ == "__main__":
    main()
