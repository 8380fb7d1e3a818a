"""Weights come out of every kind of checkpoint bit for bit, under the right names."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from npmobilenet.checkpoints import read_checkpoint
from npmobilenet.errors import CheckpointError
from tests.checkpoint_files import (
    Call,
    Name,
    npy,
    pickled,
    safetensors,
    storage,
    tensor,
    torch_legacy,
    torch_zip,
    zip_bytes,
)

FILES = Path(__file__).parent / "data" / "checkpoints"


def expected(name):
    with np.load(FILES / "expected.npz") as arrays:
        found = {key.partition(":")[2]: arrays[key] for key in arrays.files if key.startswith(name + ":")}
    assert found, name
    return found


def assert_identical(actual, wanted):
    """The same names, types, shapes and bits (NaN payloads and the sign of zero too)."""
    assert sorted(actual) == sorted(wanted)
    for name, array in wanted.items():
        assert (actual[name].dtype, actual[name].shape) == (array.dtype, array.shape), name
        assert actual[name].tobytes() == array.tobytes(), name


def read(tmp_path, content):
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    return read_checkpoint(path)


def message(path):
    """The error of an unreadable file, without the path, which it must begin with; always one line."""
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and text.isprintable(), text
    return text.removeprefix(f"{path}: ")


F32 = np.arange(6, dtype="<f4")


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize(
    "name",
    [
        *("plain", "protocol4", "dtypes", "views", "parameters", "training", "compiled", "cuda", "odd_bystanders"),
        *("quantised", "quantised_per_tensor", "quantised_per_channel", "whole_model", "whole_models", "averaged"),
    ],
)
def test_files_of_torch(name, kind):
    checkpoint = read_checkpoint(FILES / f"{name}_{kind}.pth", ema=False if name == "training" else None)
    assert_identical(checkpoint.tensors, expected(name))
    assert checkpoint.metadata == {} and checkpoint.path == FILES / f"{name}_{kind}.pth"


@pytest.mark.parametrize(
    "file", ["reference.safetensors", "reference.npz", "compressed.npz", "torchscript.pt", "state_dict.pkl"]
)
def test_files_of_other_libraries(file):
    assert_identical(read_checkpoint(str(FILES / file)).tensors, expected(file))


def test_order_is_kept_and_bookkeeping_left_out():
    names = ["0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "2.weight", "2.bias"]
    assert list(read_checkpoint(FILES / "plain_zip.pth").tensors) == names
    assert b"1.num_batches_tracked" in (FILES / "plain_zip.pth").read_bytes()


@pytest.mark.parametrize("file", ["views_zip.pth", "dtypes_legacy.pth", "reference.safetensors", "reference.npz"])
def test_arrays_are_aligned_contiguous_native_and_read_only(file):
    for name, array in read_checkpoint(FILES / file).tensors.items():
        flags = array.flags
        assert (flags.aligned, flags.c_contiguous, flags.writeable) == (True, True, False), name
        assert array.dtype.isnative, name


def test_float32_of_an_aligned_file_is_not_copied():
    tensors = read_checkpoint(FILES / "plain_zip.pth").tensors
    owners = {id(array.base) for array in tensors.values()}
    assert not any(array.flags.owndata for array in tensors.values()) and None not in owners


def test_format_is_judged_by_content(tmp_path):
    for file in ("plain_zip.pth", "plain_legacy.pth", "reference.safetensors", "reference.npz"):
        path = tmp_path / "weights.txt"
        path.write_bytes((FILES / file).read_bytes())
        assert_identical(
            read_checkpoint(path).tensors, expected(file.replace("_zip.pth", "").replace("_legacy.pth", ""))
        )


@pytest.mark.parametrize("module", ["torch", "torch.cuda"])
@pytest.mark.parametrize("function", ["_rebuild_tensor", "_rebuild_tensor_v2"])
def test_tensors_of_older_torch(tmp_path, module, function):
    rest = () if function == "_rebuild_tensor" else (False, {})
    item = {"w": tensor(storage(6, module=module), (2, 2), (2, 1), 1, function, rest)}
    found = read(tmp_path, torch_zip(item, {"0": F32.tobytes()})).tensors
    assert_identical(found, {"w": F32[1:5].reshape(2, 2)})


def test_untyped_storage_takes_the_tensor_s_dtype(tmp_path):
    source = storage(24, "UntypedStorage", module="torch.storage")
    item = {"w": tensor(source, (2,), (2,), 1, "_rebuild_tensor_v3", (False, {}, Name("torch", "float32")))}
    assert_identical(read(tmp_path, torch_zip(item, {"0": F32.tobytes()})).tensors, {"w": F32[[1, 3]]})


def test_big_endian_zip(tmp_path):
    item = {"w": tensor(storage(6), (6,), (1,)), "h": tensor(storage(2, "BFloat16Storage", "1"), (2,), (1,))}
    data = {"0": F32.astype(">f4").tobytes(), "1": b"\x3f\x80\xc0\x00"}
    found = read(tmp_path, torch_zip(item, data, byteorder=b"big")).tensors
    assert_identical(found, {"w": F32, "h": np.array([1, -2], "f4")})


@pytest.mark.parametrize("little_endian", [True, False])
def test_legacy_storages_are_little_endian_on_every_machine(tmp_path, little_endian):
    item = {"w": tensor(storage(6, view=(None,)), (6,), (1,))}
    content = torch_legacy(item, [("0", 6, F32.tobytes())], little_endian=little_endian)
    assert_identical(read(tmp_path, content).tensors, {"w": F32})


def test_legacy_views_of_a_storage(tmp_path):
    view = storage(6, view=(("7", 2, 3),))
    item = {"w": tensor(storage(6, view=(None,)), (6,), (1,)), "v": tensor(view, (2,), (1,), 1)}
    found = read(tmp_path, torch_legacy(item, [("0", 6, F32.tobytes())])).tensors
    assert_identical(found, {"w": F32, "v": F32[3:5]})


def test_strings_and_dicts_of_python_2(tmp_path):
    # SHORT_BINSTRING for every str, OrderedDict with its items as argument, an INT beyond 32 bits as text
    pair = b"](U\x03key" + b"I123456789012\ne"
    pid = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x06tQ"
    weight = b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + b"K\x00K\x06\x85K\x01\x85\x89)tR"
    body = b"\x80\x02ccollections\nOrderedDict\n](" + pair + b"](U\x01w" + weight + b"ee\x85R."
    assert_identical(read(tmp_path, torch_zip(body, {"0": F32.tobytes()})).tensors, {"w": F32})


W = tensor(storage(6), (6,), (1,))
V = tensor(storage(6), (2,), (1,), 2)
NUMBER = tensor(storage(6), (), ())


@pytest.mark.parametrize(
    ("item", "names"),
    [
        ({"epoch": 1, "ema": {"e": W}, "model": {"m": W}}, ["e"]),
        ({"epoch": 1, "student": {"e": W}, "model": {"m": W}}, ["m"]),
        ({"model_ema": {"e": W}, "optimizer": {"state": {0: {"exp_avg": W}}}}, ["e"]),
        ({"state_dict": {"model": {"m": W}, "ema": {"e": W}}}, ["e"]),
        ({"state_dict": {"model": {"m": W}, "teacher": {"e": W}}}, ["m"]),
        ({"best": NUMBER, "mine": {"m": W}}, ["m"]),
        ({"best": NUMBER, "nested": {}}, ["best"]),
        ({"rng_state": W, "mine": {"a": W, "b": W}}, ["a", "b"]),
        ({"w": W, "optimizer": {"state": {"w": W, "exp_avg": W}}}, ["w"]),
        ({"optimized": {"a": W}, "optim_state": {"a": W, "b": W}}, ["a"]),
        ({"state_dict": {"w": W}, "best": V}, ["w"]),
        ({"model": None, "weights": {"w": W}}, ["w"]),
        ({"model": {}, "net": {"w": W}}, ["w"]),
        ({"head": {"h": W}, "body": {"a": W, "b": V}}, ["a", "b"]),
        ({"one": {"x": W}, "two": {"y": W}}, ["x"]),
        ({"w": W, "nested": {"x": W}, "_extra_state": None, "lr": 0.1}, ["w"]),
        ({1: W, "w": W}, ["w"]),
        ({"module.a": W, "module.b": W}, ["a", "b"]),
        ({"module.a": W, "b": W}, ["module.a", "b"]),
        ({"n_averaged": V, "module.a": W}, ["a"]),
        ({"model._orig_mod.module.a": W, "model._orig_mod.module.b.num_batches_tracked": V}, ["a"]),
        ({"module.": W, "module.b": W}, ["module.", "module.b"]),
        ({"modules.a": W}, ["modules.a"]),
        ({"module." * 20_000 + "w": W}, ["module." * 19_992 + "w"]),  # a bounded number of times
    ],
)
def test_which_dict_and_which_names(tmp_path, item, names):
    assert list(read(tmp_path, torch_zip(item, {"0": F32.tobytes()})).tensors) == names


def test_npz_byte_orders_and_versions(tmp_path):
    content = zip_bytes(
        {
            "big.npy": npy(">f4", "(2,)", np.array([1.5, -2], ">f4").tobytes()),
            "fortran.npy": npy("<i2", "(2, 3)", np.arange(6, dtype="<i2").tobytes(), True),
            "second.npy": npy("|u1", "(2L,)", b"\x01\x02", version=b"\x02\x00"),
            "bool.npy": npy("|b1", "()", b"\x07"),
            "readme.txt": b"not an array",
        }
    )
    wanted = {
        "big": np.array([1.5, -2], "f4"),
        "fortran": np.ascontiguousarray(np.arange(6, dtype="i2").reshape(3, 2).T),
        "second": np.array([1, 2], "u1"),
        "bool": np.array(True),
    }
    assert_identical(read(tmp_path, content).tensors, wanted)


def test_safetensors_at_an_odd_offset_is_copied_into_alignment(tmp_path):
    byte = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    header = {"b": byte, "w": {"dtype": "F32", "shape": [6], "data_offsets": [1, 25]}}
    found = read(tmp_path, safetensors(json.dumps(header), b"\x05" + F32.tobytes())).tensors
    assert_identical(found, {"b": np.array([5], "u1"), "w": F32})
    assert found["w"].flags.aligned


def test_float64_is_rounded_and_overflows_to_infinity(tmp_path):
    values = np.array([1 / 3, 1e300, -1e300])
    found = read(tmp_path, zip_bytes({"w.npy": npy("<f8", "(3,)", values.tobytes())})).tensors["w"]
    assert found.tolist() == [float(np.float32(1 / 3)), float("inf"), float("-inf")]


def test_an_expanded_tensor_is_gathered(tmp_path):
    item = {"w": tensor(storage(6), (1000, 3), (0, 1), 3)}
    found = read(tmp_path, torch_zip(item, {"0": F32.tobytes()})).tensors["w"]
    assert found.shape == (1000, 3) and (found == F32[3:]).all()


def test_a_deflated_zip_of_torch(tmp_path):
    members = {"a/data.pkl": pickled({"w": W}), "a/data/0": F32.tobytes()}
    assert_identical(read(tmp_path, zip_bytes(members, zipfile.ZIP_DEFLATED)).tensors, {"w": F32})


def test_bystanders_are_ignored(tmp_path):
    item = {
        "path": Call(Name("pathlib", "PosixPath"), ("runs", "first")),
        "history": Call(Name("mmengine.logging.history_buffer", "HistoryBuffer"), (), {"log": [1.5]}),
        "kind": Call(Name("my_project.options", "Kind"), (2,)),
        "function": Call(Name("functools", "partial"), (Name("os", "system"),), (("x",), {})),
        "config": Call(Name("omegaconf.dictconfig", "DictConfig"), (), {"_content": {"lr": 0.1}}, opcode=b"\x81"),
        "args": Call(Name("argparse", "Namespace"), (), {"lr": 0.1}, opcode=b"\x81"),
        "set": Call(Name("__builtin__", "set"), ([1, 2],)),
        "w": Call(
            Name("torch._tensor", "_rebuild_from_type_v2"),
            (Name("torch._utils", "_rebuild_parameter"), Name("me", "Mine"), (W, True, {}), {}),
        ),
    }
    assert_identical(read(tmp_path, torch_zip(item, {"0": F32.tobytes()})).tensors, {"w": F32})


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sparse", "tensor 'odd' is sparse, which is not supported; save tensor.to_dense()"),
        ("complex", "tensor 'odd' has dtype 'torch.complex64', which is not supported"),
        ("float8", "tensor 'odd' has dtype 'torch.float8_e4m3fn', which is not supported"),
        ("single_tensor", "holds a single tensor, not a state dict; save model.state_dict()"),
        ("list", "holds a list, not a state dict; save model.state_dict()"),
        ("no_tensors", "holds no tensors (but 'epoch', 'history'); save model.state_dict()"),
    ],
)
def test_what_torch_can_save_but_is_no_state_dict(name, kind, text):
    assert text in message(FILES / f"{name}_{kind}.pth")


@pytest.mark.torch
@pytest.mark.parametrize("new", [True, False])
def test_live_against_torch(tmp_path, new):
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5))
    state = {**network.state_dict(), "t": torch.rand(3, 4, 5).permute(2, 0, 1), "b": torch.rand(3).bfloat16()}
    path = tmp_path / "live.pth"
    torch.save(
        {"model": torch.nn.DataParallel(network).state_dict() | {"module.t": state["t"], "module.b": state["b"]}},
        path,
        _use_new_zipfile_serialization=new,
    )
    wanted = {k: v.float().contiguous().numpy() for k, v in state.items() if "num_batches" not in k}
    assert_identical(read_checkpoint(path).tensors, wanted)


@pytest.mark.torch
def test_live_torch_reads_our_idea_of_legacy_files(tmp_path):
    torch = pytest.importorskip("torch")
    item = {"w": tensor(storage(6, view=(None,)), (2, 2), (2, 1), 1)}
    path = tmp_path / "ours.pth"
    path.write_bytes(torch_legacy(item, [("0", 6, F32.tobytes())], little_endian=False))
    assert_identical(read_checkpoint(path).tensors, {"w": torch.load(path)["w"].numpy()})
