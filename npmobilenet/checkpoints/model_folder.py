"""Folders as the Hugging Face hub lays them out: weights, in one file or several, and what describes them.

    config.json                       the architecture's settings and the names of the classes
    preprocessor_config.json          how a photograph becomes an input
    model.safetensors                 the weights; or pytorch_model.bin, which torch.save wrote
    model.safetensors.index.json      of weights in several files: {"weight_map": {tensor: file}, …}
    model.json                        TensorFlow.js's manifest

Source: https://huggingface.co/docs/huggingface_hub (serialization), transformers' ``modeling_utils.py``.
"""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

from npmobilenet.checkpoints.json_text import parse_object
from npmobilenet.errors import CheckpointError
from npmobilenet.text import printable, quote

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"

# In the order in which they are preferred
WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"),
    "model.json",
)
SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".ckpt", ".tflite", ".pb")

MAX_JSON = 16 << 20
MAX_SHARDS = 1000
MAX_FILES = 10_000  # of a folder that are looked at


def weights_in(folder: Path) -> Path:
    """Return the weights file in a folder: of a name that the hub uses, or the only one there is."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    names = []
    for _, path in zip(range(MAX_FILES), folder.iterdir(), strict=False):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            names.append(path.name)
    if len(names) == 1:
        return folder / names[0]
    if names:
        shown = ", ".join(quote(name) for name in sorted(names)[:5])
        raise CheckpointError(f"is a folder with {len(names)} weights files ({shown}); name one of them")
    raise CheckpointError(f"is a folder without weights (looked for {', '.join(WEIGHTS)}, or a single other file)")


def read_beside(path: Path, name: str) -> tuple[dict, tuple[str, ...]]:
    """Return the JSON object in the file ``name`` beside ``path``, {} if there is none, and notes on what is wrong."""
    path = path.with_name(name)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return {}, (f"{name} beside it is not a regular file, so it was not read",)
        if status.st_size > MAX_JSON:
            return {}, (f"{name} beside it has more than {MAX_JSON >> 20} MiB, so it was not read",)
        with path.open("rb") as file:
            return parse_object(file.read(MAX_JSON), name), ()
    except (FileNotFoundError, NotADirectoryError):
        return {}, ()
    except (OSError, ValueError) as error:  # CheckpointError too
        return {}, (f"{name} beside it was passed over: {printable(getattr(error, 'strerror', None) or str(error))}",)


def shards(index: bytes) -> dict[str, set[str]]:
    """Return the names of the files that an index lists, each with the tensors that are to be taken from it."""
    found: dict[str, set[str]] = {}
    places = parse_object(index, "its index").get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError("its index has no weight_map from tensors to files; the file is damaged")
    for tensor, name in places.items():
        # What an index lists must not lie outside of its folder.
        if not is_file_name(name):
            raise CheckpointError(f"its index places tensor {quote(tensor)} in {quote(name)}, which is no file's name")
        found.setdefault(name, set()).add(tensor)
    if len(found) > MAX_SHARDS:
        raise CheckpointError(f"its index lists {len(found)} files; {MAX_SHARDS} at most are read")
    return found


def is_file_name(name: object) -> bool:
    """Whether this is the name of a file in a folder, and no path, on any system."""
    if not isinstance(name, str) or name in ("", ".", "..") or "\0" in name:
        return False
    return name == PurePosixPath(name).name == PureWindowsPath(name).name
