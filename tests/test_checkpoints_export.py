"""`export_weights`: what it writes comes back bit for bit, or nothing is written."""

import json
import os
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npmobilenet.checkpoints import export_weights, read_checkpoint
from npmobilenet.errors import CheckpointError
from tests.test_checkpoints import assert_identical

DTYPES = ["f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]
SUFFIXES = [".safetensors", ".npz"]
WEIGHTS = {"a.weight": np.arange(6, dtype="f4").reshape(2, 3), "a.bias": np.array([1, 2], "i8")}


def refusal(state_dict, path, **options):
    """The error of a refused export, which must be one line that begins with the path and leave nothing."""
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    with pytest.raises(CheckpointError) as caught:
        export_weights(state_dict, path, **options)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and text.isprintable()
    return text.removeprefix(f"{path}: ")


def names():
    alphabet = st.sampled_from("aZ09._-/\\ ü名🜨")
    fixed = st.sampled_from(["file", "a.npy", "../up", "/root", "a/b", "arr_0", "ü.weight", "__metadata"])
    return fixed | st.text(alphabet, min_size=1, max_size=12).map(lambda text: "x" + text)


def layouts(array):
    """The same numbers in another memory layout."""
    return st.sampled_from(
        [array, np.asarray(array, order="F"), array.astype(array.dtype.newbyteorder(">"), copy=False)]
    )


ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0)))


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), arrays=st.dictionaries(names(), ARRAYS, min_size=1, max_size=5))
def test_round_trip(tmp_path, suffix, data, arrays):
    metadata = data.draw(st.none() | st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.booleans())))
    given_arrays = {name: data.draw(layouts(array)) for name, array in arrays.items()}
    checkpoint = read_checkpoint(export_weights(given_arrays, tmp_path / f"w{suffix}", metadata=metadata))
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = {k: a.astype("f4") if a.dtype.kind == "f" and a.dtype != "f4" else a for k, a in arrays.items()}
    assert_identical(checkpoint.tensors, wanted)
    assert list(checkpoint.tensors) == list(arrays)
    assert checkpoint.metadata == (metadata or {})
    assert [file.name for file in tmp_path.iterdir()] == [f"w{suffix}"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_bit_of_float32(tmp_path, suffix):
    bits = np.array([0, 1 << 31, 1, 0x7F800001, 0x7FC12345, 0xFFFFFFFF, 0x7F800000, 0xFF800000], "u4")
    found = read_checkpoint(export_weights({"w": bits.view("f4")}, tmp_path / f"w{suffix}")).tensors["w"]
    assert found.view("u4").tolist() == bits.tolist()


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".NPZ"])
def test_lists_scalars_and_the_path(tmp_path, suffix):
    path = str(tmp_path / f"w{suffix}")
    assert export_weights({"l": [[1.5, 2.0]], "s": 3}, path) == Path(path)
    assert_identical(read_checkpoint(path).tensors, {"l": np.array([[1.5, 2]], "f4"), "s": np.array(3)})


def test_safetensors_layout(tmp_path):
    arrays = {
        "byte": np.ones(3, "u1"),
        "w": np.ones(5, "f4"),
        "half": np.ones(1, "f2"),
        "long": np.ones(1, "i8"),
    }
    content = export_weights(arrays, tmp_path / "w.safetensors", metadata={"k": [1, "é"]}).read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    assert (8 + length) % 64 == 0
    header = json.loads(content[8 : 8 + length])
    assert list(header) == ["__metadata__", *arrays]
    assert json.loads(header["__metadata__"]["npmobilenet"]) == {"k": [1, "é"]}
    offsets = {name: header[name]["data_offsets"] for name in arrays}
    assert offsets == {"long": [0, 8], "w": [8, 28], "half": [28, 30], "byte": [30, 33]}
    assert len(content) == 8 + length + 33


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_weights_make_equal_files(tmp_path, suffix):
    one, two = (export_weights(WEIGHTS, tmp_path / f"{n}{suffix}", metadata={"a": 1}) for n in "12")
    assert one.read_bytes() == two.read_bytes()


def test_the_safetensors_library_reads_it(tmp_path):
    library = pytest.importorskip("safetensors")
    library_numpy = pytest.importorskip("safetensors.numpy")
    path = export_weights({**WEIGHTS, "empty": np.ones((0, 2), "f2")}, tmp_path / "w.safetensors", metadata={"a": 1})
    assert_identical(library_numpy.load_file(path), {**WEIGHTS, "empty": np.ones((0, 2), "f2")})
    with library.safe_open(path, "np") as file:
        assert file.metadata() == {"npmobilenet": '{"a": 1}'}


def test_numpy_reads_it(tmp_path):
    path = export_weights(WEIGHTS, tmp_path / "w.npz", metadata={"a": 1})
    with np.load(path) as arrays:
        assert_identical({name: arrays[name] for name in WEIGHTS}, WEIGHTS)
        assert arrays.files == [*WEIGHTS, "__metadata__"]
        assert json.loads(str(arrays["__metadata__"])) == {"npmobilenet": {"a": 1}}


class Tensor:
    """Quacks like a PyTorch tensor on another device, with a gradient."""

    def __init__(self, array, dtype="torch.float32", where="cuda"):
        self.array, self.dtype, self.where = array, dtype, where

    def detach(self):
        return Tensor(self.array, self.dtype, self.where + " detached")

    def cpu(self):
        assert self.where == "cuda detached"
        return Tensor(self.array, self.dtype, "cpu")

    def float(self):
        return Tensor(self.array, "torch.float32", self.where)

    def numpy(self):
        if self.where != "cpu" or self.dtype != "torch.float32":
            raise TypeError(f"no\nNumPy for {self.dtype} on {self.where}")
        return self.array


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tensors_by_duck_typing(tmp_path, suffix):
    values = np.array([1.0, -0.0, float("inf"), 3.140625], "f4")  # exact in bfloat16
    state = {
        "w": Tensor(values),
        "b": Tensor(values, "torch.bfloat16"),
        "s": Tensor(np.float32(2)[()], "torch.bfloat16"),
    }
    path = export_weights(state, tmp_path / f"w{suffix}")
    assert_identical(read_checkpoint(path).tensors, {"w": values, "b": values, "s": np.array(2, "f4")})
    assert (b'"BF16"' in path.read_bytes()) == (suffix == ".safetensors")


@pytest.mark.torch
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_live_torch_tensors(tmp_path, suffix):
    torch = pytest.importorskip("torch")
    torch.manual_seed(2)
    state = {
        "parameter": torch.nn.Parameter(torch.rand(2, 3)),
        "bfloat16": torch.rand(3, 2, requires_grad=True).bfloat16().t(),
        "nan": torch.tensor([0x7FC1, 0x7F81], dtype=torch.int32).to(torch.uint16).view(torch.bfloat16),
        "scalar": torch.tensor(7),
    }
    found = read_checkpoint(export_weights(state, tmp_path / f"w{suffix}")).tensors
    wanted = {k: (v.detach().float() if v.is_floating_point() else v).contiguous().numpy() for k, v in state.items()}
    assert_identical(found, wanted)
    assert "tensor 'w' is not an array of numbers" in refusal({"w": torch.eye(2).to_sparse()}, tmp_path / f"n{suffix}")
    assert "tensor 'w' has dtype complex64" in refusal({"w": torch.ones(1) * 1j}, tmp_path / f"n{suffix}")


@pytest.mark.torch
def test_live_safetensors_torch_reads_bfloat16(tmp_path):
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    value = torch.rand(5).bfloat16()
    loaded = library.load_file(export_weights({"w": value}, tmp_path / "w.safetensors"))["w"]
    assert loaded.dtype == torch.bfloat16 and torch.equal(loaded, value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("state_dict", "text"),
    [
        ({3: np.ones(1)}, "tensor names must be text, got a int: '3'"),
        ({"": np.ones(1)}, "tensor name '' cannot be stored"),
        ({"a\0b": np.ones(1)}, r"tensor name 'a\x00b' cannot be stored"),
        ({"a\nb": np.ones(1)}, r"tensor name 'a\nb' cannot be stored"),
        ({"\ud800": np.ones(1)}, r"tensor name '\ud800' cannot be stored"),
        ({"__metadata__": np.ones(1)}, "tensor name '__metadata__' cannot be stored"),
        ({"n" * 1001: np.ones(1)}, "cannot be stored; use 1 to 1000 printable characters"),
        ({"good": np.ones(1), "w": np.array([None])}, "tensor 'w' has dtype object, which cannot be stored"),
        ({"w": "text"}, "tensor 'w' has dtype <U4, which cannot be stored"),
        ({"w": [1j]}, "tensor 'w' has dtype complex128, which cannot be stored"),
        ({"w": np.array(["2020"], "M8[D]")}, "tensor 'w' has dtype datetime64[D], which cannot be stored"),
        ({"w": np.ones(1, [("a", "f4")])}, "which cannot be stored"),
        ({"w": [[1], [2, 3]]}, "tensor 'w' is not an array of numbers (setting an array element"),
        ({"w": None}, "tensor 'w' has dtype object"),
        (
            {"w": Tensor(np.ones(1), "torch.float8_e5m2")},
            "tensor 'w' is not an array of numbers (no NumPy for torch.float8_e5m2 on cpu)",
        ),
        ({}, "there are no tensors to write"),
        ([np.ones(1)], "expected a mapping of names to tensors, got a list"),
    ],
)
def test_what_cannot_be_stored(tmp_path, suffix, state_dict, text):
    assert text in refusal(state_dict, tmp_path / f"w{suffix}")


def test_names_that_occur_twice(tmp_path):
    class Twice:
        def items(self):
            return [("w", [1.0]), ("w", [2.0])]

    assert "tensor 'w' occurs twice" in refusal(Twice(), tmp_path / "w.npz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_metadata_that_is_no_json(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    assert "metadata must be a dict, got a list" in refusal(WEIGHTS, path, metadata=[1])
    assert "metadata cannot be stored as JSON (Object of type set" in refusal(WEIGHTS, path, metadata={"a": {1}})
    assert "metadata cannot be stored as JSON (Out of range" in refusal(WEIGHTS, path, metadata={"a": float("nan")})
    cycle = {}
    cycle["self"] = cycle
    assert "metadata cannot be stored as JSON (Circular" in refusal(WEIGHTS, path, metadata=cycle)


def test_other_suffixes_and_folders(tmp_path):
    assert "cannot export to '.pth'; use .safetensors or .npz" in refusal(WEIGHTS, tmp_path / "w.pth")
    assert "cannot export to ''" in refusal(WEIGHTS, tmp_path / "w")
    with pytest.raises(CheckpointError, match=r"none/w\.npz: cannot be written \(No such file or directory\)"):
        export_weights(WEIGHTS, tmp_path / "none" / "w.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(CheckpointError, match=r"folder\.npz: cannot be written \(Is a directory\)"):
        export_weights(WEIGHTS, tmp_path / "folder.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["folder.npz"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device"), MemoryError])
def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch, suffix, failure):
    path = export_weights({"old": [1.0]}, tmp_path / f"w{suffix}")
    before = path.read_bytes()
    seen = []

    def fail(descriptor):
        seen.extend(file.name for file in tmp_path.iterdir())
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((KeyboardInterrupt, CheckpointError, MemoryError)) as caught:
        export_weights(WEIGHTS, path)
    if isinstance(failure, OSError):
        assert str(caught.value) == f"{path}: cannot be written (No space left on device)"
    assert len(seen) == 2 and path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        path = export_weights(WEIGHTS, tmp_path / "w.npz")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
