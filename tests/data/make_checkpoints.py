"""Write ``tests/data/checkpoints``: one small file for each thing that PyTorch and others put into files.

Made with torch 2.13.0+cpu, safetensors 0.8.0, NumPy 2.4.6, Python 3.11 and seed 0:

    python tests/data/make_checkpoints.py

``expected.npz`` holds, as ``<file>:<tensor>``, what `read_checkpoint` has to return for each file (``<file>``
without ``_zip.pth`` and ``_legacy.pth``). It comes from the tensors themselves, converted by PyTorch, so it
checks the reader independently.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent / "checkpoints"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32)

expected: dict[str, np.ndarray] = {}


def arrays(state_dict: dict) -> dict[str, np.ndarray]:
    """Return the tensors as `read_checkpoint` does, converted by PyTorch."""
    return {
        name: (tensor.detach().float() if tensor.is_floating_point() else tensor).contiguous().numpy().copy()
        for name, tensor in state_dict.items()
        if not name.endswith("num_batches_tracked")
    }


def save(name: str, content: object, weights: dict | None, **options: object) -> None:
    """Save ``content`` in both formats; ``weights`` is what should come out."""
    for kind, new in (("zip", True), ("legacy", False)):
        torch.save(content, HERE / f"{name}_{kind}.pth", _use_new_zipfile_serialization=new, **options)
    save_expected(name, weights or {})


def save_expected(name: str, weights: dict) -> None:
    """Note what should come out of a file."""
    expected.update({f"{name}:{key}": array for key, array in arrays(weights).items()})


def save_quantised_network(name: str, engine: str) -> None:
    """Save a convolution with its batch norm and a linear layer, quantised for this engine."""
    torch.backends.quantized.engine = engine
    network = nn.Sequential(
        torch.ao.quantization.QuantStub(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)
    ).eval()
    torch.ao.quantization.fuse_modules(network, ["1", "2"], inplace=True)
    network.qconfig = torch.ao.quantization.get_default_qconfig(engine)
    torch.ao.quantization.prepare(network, inplace=True)
    network(torch.rand(8, 3, 3, 3))
    torch.ao.quantization.convert(network, inplace=True)
    state = network.state_dict()
    results = ("scale", "zero_point", "_packed_params", "dtype")
    weights = {key: tensor for key, tensor in state.items() if key.rpartition(".")[2] not in results}
    weights["4.weight"], weights["4.bias"] = state["4._packed_params._packed_params"]
    save(name, state, {key: tensor.dequantize() for key, tensor in weights.items()})
    for layer in ("0", "1", "4"):
        numbers = [state[f"{layer}.{each}"].item() for each in ("scale", "zero_point")]
        expected[f"{name}_results:{layer}"] = np.array(numbers)


def special(dtype: torch.dtype) -> torch.Tensor:
    """Return values that a careless conversion would change."""
    info = torch.finfo(dtype)
    return torch.tensor(
        [
            0.0,
            -0.0,
            1 / 3,
            -1.5,
            float("inf"),
            -float("inf"),
            float("nan"),
            info.max,
            info.tiny,
            info.tiny / 4,
        ],
        dtype=torch.float64,
    ).to(dtype)


def payloads() -> torch.Tensor:
    """Return float32 NaNs with payloads, one of them signalling and one negative."""
    return torch.from_numpy(np.array([0x7FC12345, 0x7F800001, 0xFFC00077, 0x00000001], "u4").view("f4").copy())


class Network(nn.Sequential):
    """A convolution, batch normalisation and a linear layer."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 2))


class TaggedTensor(torch.Tensor):
    """A subclass of Tensor that the reader has never heard of."""


def main() -> None:
    """Write every file."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    HERE.mkdir(exist_ok=True)
    network = Network()
    plain = network.state_dict()
    save("plain", plain, plain)
    save("protocol4", plain, plain, pickle_protocol=4)

    tensors = {str(dtype).removeprefix("torch."): special(dtype) for dtype in FLOATS}
    tensors |= {str(dtype).removeprefix("torch."): torch.tensor([0, 1, 100]).to(dtype) for dtype in INTEGERS}
    tensors |= {"bool": torch.tensor([True, False]), "payloads": payloads()}
    save("dtypes", tensors, tensors)

    base = torch.arange(24, dtype=torch.float32)
    views = {
        "whole": base,
        "transposed": base.view(2, 3, 4).permute(2, 0, 1),
        "offset": base[5:13],
        "every_third": base[1::3],
        "expanded": base[3].expand(2, 5),
        "half_transposed": base.half().view(4, 6).t(),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
    }
    save("views", views, views)

    parameters = {
        "parameter": nn.Parameter(base.view(4, 6).clone()),
        "tagged": torch.tensor([1.0, 2.0]).as_subclass(TaggedTensor),
    }
    parameters["parameter"].note = "an attribute"
    save("parameters", parameters, parameters)

    parallel = nn.DataParallel(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network[2](torch.ones(4)).sum().backward()
    optimizer.step()
    trained = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    training = {
        "epoch": 3,
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, milestones=[10, 20], out=Path("runs") / "first", flag=True),
        "best": torch.tensor(71.9),
        "accuracy": np.float64(0.5),
        "history": collections.defaultdict(list, loss=[1.5, 2.5]),
        "milestones": collections.Counter([10, 20]),
        "shape": torch.Size([1, 3]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "when": datetime.datetime(2020, 1, 2, 3, 4, 5),
        "classes": {"cat", "dog"},
        "table": np.arange(3),
        "large": 2**40,
        "nothing": None,
        "state_dict_ema": {name: torch.zeros_like(tensor) for name, tensor in parallel.state_dict().items()},
        "state_dict": parallel.state_dict(),
    }
    save("training", training, trained)
    compiled = {"model": {"module." + "_orig_mod." + name: tensor for name, tensor in plain.items()}}
    save("compiled", compiled, plain)

    # Refused if they are weights, harmless if they are not.
    quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    save("quantised", {"good": torch.ones(2), "odd": quantised}, {"good": torch.ones(2), "odd": quantised.dequantize()})
    for name, tensor in {
        "sparse": torch.eye(2).to_sparse(),
        "complex": torch.ones(2, dtype=torch.complex64),
        "float8": torch.ones(2).to(torch.float8_e4m3fn),
    }.items():
        save(name, {"good": torch.ones(2), "odd": tensor}, None)
    save("odd_bystanders", {"model": {"w": torch.ones(2)}, "odd": {"q": quantised}}, {"w": torch.ones(2)})
    save("single_tensor", torch.ones(2), None)
    save("list", [torch.ones(2)], None)
    save("no_tensors", {"epoch": 3, "history": [1.5]}, None)
    torch.serialization.get_source_lines_and_file = None  # or the file would hold the classes' source and paths
    save("whole_model", network, plain)
    other = Network()
    save("whole_models", {"epoch": 1, "model": network, "ema": nn.DataParallel(other)}, other.state_dict())

    location_tag = torch.serialization.location_tag
    torch.serialization.location_tag = lambda storage: "cuda:0"
    save("cuda", plain, plain)
    torch.serialization.location_tag = location_tag

    script = HERE / "torchscript.pt"
    linear = nn.Linear(2, 2)
    save_expected("torchscript.pt", linear.state_dict())
    torch.jit.save(torch.jit.trace(linear, torch.ones(1, 2)), script)
    with zipfile.ZipFile(script) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if not name.endswith("debug_pkl")}
    with zipfile.ZipFile(script, "w") as archive:  # the debug_pkl members hold paths
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)

    save_quantised_network("quantised_per_tensor", "qnnpack")
    save_quantised_network("quantised_per_channel", "fbgemm")
    with (HERE / "state_dict.pkl").open("wb") as file:
        pickle.dump(plain, file)
    save_expected("state_dict.pkl", plain)
    averaged = torch.optim.swa_utils.AveragedModel(network)
    network[0].weight.data.zero_()
    save("averaged", {"model": network.state_dict(), "model_ema": averaged.state_dict()}, None)
    save_expected("averaged", averaged.module.state_dict())
    save_expected("averaged_raw", network.state_dict())

    floats = {name: tensor for name, tensor in tensors.items() if name != "uint32"}
    save_file(floats, HERE / "reference.safetensors", metadata={"format": "pt"})
    expected.update({f"reference.safetensors:{name}": array for name, array in arrays(floats).items()})

    numbers = {name: tensor.numpy() for name, tensor in tensors.items() if name != "bfloat16"}
    numbers |= {"big_endian": np.array([1.5, -2.0], ">f4"), "fortran": np.asfortranarray(np.eye(3, 2))}
    np.savez(HERE / "reference.npz", **numbers)
    np.savez_compressed(HERE / "compressed.npz", **numbers)
    for name, array in numbers.items():
        dtype = np.float32 if array.dtype.kind == "f" else array.dtype
        with np.errstate(all="ignore"):
            expected[f"reference.npz:{name}"] = expected[f"compressed.npz:{name}"] = array.astype(dtype)

    np.savez_compressed(HERE / "expected.npz", **expected)


if __name__ == "__main__":
    main()
