"""The same weights in every container that people keep them in, and which of several state dicts are taken."""

import bz2
import gzip
import json
import lzma
import pickle
import re
import zipfile

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.checkpoints import allowance, compressed, read_checkpoint
from npmobilenet.checkpoints.fit import naming
from npmobilenet.errors import CheckpointError
from tests.checkpoint_files import (
    Call,
    Name,
    pickled,
    safetensors_bytes,
    storage,
    tensor,
    torch_zip,
    zip_bytes,
)
from tests.conftest import compiled_only, no_kernels
from tests.test_checkpoints import F32, FILES, assert_identical, expected, message

pytestmark = no_kernels

RAW = F32.tobytes()
W = tensor(storage(6), (6,), (1,))
V = tensor(storage(6), (2,), (1,), 2)
ARRAYS = {
    "w": F32.reshape(2, 3),
    "fortran": np.asfortranarray(F32.reshape(2, 3)),
    "strided": np.arange(20, dtype="f4")[::3],
    "big": np.array([1.5, -2], ">f4"),
    "half": np.array([1 / 3, -0.0], "f2"),
    "double": np.array([[1 / 3]]),
    "scalar": np.array(2.5, "f4"),
    "number": np.float32(1.25),
    "count": np.int64(7),
    "flag": np.array([True, False]),
    "empty": np.empty((0, 3), "f4"),
    "bytes": np.array([1, 255], "u1"),
}
WANTED = {
    name: np.array(array, np.float32 if np.asarray(array).dtype.kind == "f" else None, order="C")
    for name, array in ARRAYS.items()
}
PASSED_OVER = {
    "names": np.array(["cat", "dog"]),
    "objects": np.array([{"a": 1}, None], object),
    "when": np.datetime64("2020-01-02"),
    "record": np.zeros(2, [("x", "f4")]),
    "text": np.str_("cat"),
    "epoch": 3,
}


def read_file(tmp_path, content, **options):
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    return read_checkpoint(path, **options)


def torch_file(tmp_path, item, **options):
    return read_file(tmp_path, torch_zip(item, {"0": RAW}), **options)


# NumPy arrays in pickles ---------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_arrays(tmp_path, protocol):
    found = read_file(tmp_path, pickle.dumps({**ARRAYS, **PASSED_OVER}, protocol))
    assert_identical(found.tensors, WANTED)
    assert found.container == "a pickle"


@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_saved_by_torch(tmp_path, protocol):
    body = pickled({"epoch": 3, "state_dict": {**ARRAYS, **PASSED_OVER}}, protocol)
    found = read_file(tmp_path, zip_bytes({"archive/data.pkl": body}))
    assert_identical(found.tensors, WANTED)
    assert (found.read_from, found.container) == ("state_dict", "PyTorch's zip format")


def test_a_dict_saved_by_numpy(tmp_path):
    np.save(tmp_path / "file.npy", {**ARRAYS, **PASSED_OVER}, allow_pickle=True)
    assert_identical(read_checkpoint(tmp_path / "file.npy").tensors, WANTED)
    np.savez(tmp_path / "file.npz", epoch=3, model={**ARRAYS, **PASSED_OVER})
    assert_identical(read_checkpoint(tmp_path / "file.npz").tensors, WANTED)
    plain = {name: value for name, value in PASSED_OVER.items() if name not in ("record", "epoch")}
    np.savez(tmp_path / "file.npz", **ARRAYS, **plain)
    assert_identical(read_checkpoint(tmp_path / "file.npz").tensors, WANTED)


def test_strings_that_python_2_pickled(tmp_path):
    # An array's bytes as a string: SHORT_BINSTRING of protocol 1, and STRING of protocol 0 with escapes
    dtype = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNI-1\nI-1\nK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    data = np.array([1.5, -2], "<f4").tobytes()
    binary = b"}q\x00U\x01w" + array + b"(K\x01(K\x02t" + dtype + b"I00\nU\x08" + data + b"tbs."
    assert_identical(read_file(tmp_path, binary).tensors, {"w": np.array([1.5, -2], "f4")})
    text = b"(dp0\nS'w'\np1\n" + array + b"(I1\n(I2\nt" + dtype + b"I00\nS" + repr(data)[1:].encode() + b"\ntbs."
    assert_identical(read_file(tmp_path, text).tensors, {"w": np.array([1.5, -2], "f4")})
    escapes = b"(dp0\nS'\\\\n\\n\\t\\x41\\''\nI1\nsS'w'\n" + array + b"(I1\n(I0\nt" + dtype + b"I00\nS''\ntbs."
    assert_identical(read_file(tmp_path, escapes).tensors, {"w": np.empty(0, "f4")})


def test_bfloat16_of_ml_dtypes(tmp_path):
    state = (3, "<", None, None, None, -1, -1, 0)
    dtype = Call(Name("numpy", "dtype"), (Name("ml_dtypes", "bfloat16"), False, True), state)
    array = Call(Name("numpy._core.numeric", "_frombuffer"), (b"\x80\x3f\x00\xc0", dtype, (2,), "C"))
    assert_identical(read_file(tmp_path, pickled({"w": array}, 4)).tensors, {"w": np.array([1, -2], "f4")})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"shape": (7,)}, "an array in its pickle of <f4 and shape (7,) should have 28 bytes but has 24"),
        ({"shape": (2**62, 2**62)}, "but has 24"),
        ({"shape": (-6,)}, "is damaged"),
        ({"shape": [6]}, "is damaged"),
        ({"shape": (1,) * 40}, "is damaged"),
        ({"dtype": "f4"}, "is damaged"),
        ({"content": 24}, "is damaged"),
        ({"content": None}, "is damaged"),
        ({"content": "€"}, "is damaged"),
        ({"fortran": "yes"}, "is damaged"),
    ],
)
def test_pickled_arrays_that_do_not_fit(tmp_path, change, text):
    dtype = Call(Name("numpy", "dtype"), ("f4", False, True), (3, "<", None, None, None, -1, -1, 0))
    parts = {"shape": (6,), "dtype": dtype, "fortran": False, "content": RAW} | change
    empty = (Name("numpy", "ndarray"), (0,), b"b")
    item = {"w": Call(Name("numpy.core.multiarray", "_reconstruct"), empty, (1, *parts.values()))}
    path = tmp_path / "file.pkl"
    path.write_bytes(pickled(item, 3))
    assert text in message(path)


def test_storages_in_a_pickle_are_files_of_their_own():
    assert_identical(read_checkpoint(FILES / "state_dict.pkl").tensors, expected("state_dict.pkl"))


# Foreign objects -----------------------------------------------------------------------------------------


def test_a_state_dict_of_a_foreign_class(tmp_path):
    for made in (
        Call(Name("easydict", "EasyDict"), ({"w": W},)),
        Call(Name("mine", "State"), (), {"w": W}, opcode=b"\x81"),
    ):
        assert_identical(torch_file(tmp_path, {"epoch": 1, "state_dict": made}).tensors, {"w": F32})
    body = b"\x80\x02cmine\nDict\n)\x81X\x01\x00\x00\x00w" + pickled(W)[2:-1] + b"s."
    found = read_file(tmp_path, torch_zip(body, {"0": RAW}))
    assert_identical(found.tensors, {"w": F32})
    assert found.notes == ("refers to Python objects, none of them imported or run: mine.Dict",)


def test_keys_that_are_classes_are_dropped(tmp_path):
    body = b"\x80\x02}(X\x09\x00\x00\x00callbacks}cpl.callbacks\nEarlyStopping\n}sX\x01\x00\x00\x00w"
    found = read_file(tmp_path, torch_zip(body + pickled(W)[2:-1] + b"u.", {"0": RAW}))
    assert_identical(found.tensors, {"w": F32})


def test_nothing_but_foreign_objects(tmp_path):
    path = tmp_path / "file.pth"
    path.write_bytes(torch_zip({"model": Call(Name("mine", "Net"), (3,)), "fn": Name("os", "system")}))
    assert message(path) == (
        "holds no tensors (but 'model', 'fn'); it refers to the Python objects 'mine.Net', 'os.system', and nothing of "
        "it was imported or run; save model.state_dict()"
    )
    path.write_bytes(torch_zip(Call(Name("mine", "Net"), ())))
    assert "holds an object of the Python class 'mine.Net' without tensors" in message(path)


# Modules -------------------------------------------------------------------------------------------------


def module(kind="mine.Net", parameters=None, modules=None, buffers=None, passing=()):
    state = {"training": True, "_parameters": parameters or {}, "_buffers": buffers or {}, "_modules": modules or {}}
    if passing:
        state["_non_persistent_buffers_set"] = Call(Name("builtins", "set"), (list(passing),))
    return Call(Name(*kind.rsplit(".", 1)), (), state, opcode=b"\x81")


def test_a_whole_module(tmp_path):
    inner = module("torch.nn.modules.conv.Conv2d", {"weight": W, "bias": None})
    norm = module(buffers={"running_mean": V, "table": W, "num_batches_tracked": V}, passing=["table"])
    network = module(parameters={"scale": V}, modules={"0": inner, "1": norm, "none": None})
    wanted = ["scale", "0.weight", "1.running_mean"]
    assert list(torch_file(tmp_path, network).tensors) == wanted
    assert list(torch_file(tmp_path, module(modules={"module": network})).tensors) == wanted
    found = torch_file(tmp_path, {"epoch": 1, "model": network, "ema": module(modules={"module": network})})
    assert (list(found.tensors), found.read_from, found.others) == (wanted, "ema", ("model",))


def test_a_torchscript_program(tmp_path):
    layer = Call(Name("__torch__.torch.nn", "Linear"), (), {"weight": W, "training": True}, opcode=b"\x81")
    network = Call(Name("__torch__", "Net"), (), {"0": layer, "mean": V, "size": 3}, opcode=b"\x81")
    found = read_file(tmp_path, torch_zip(network, {"0": RAW}, **{"constants.pkl": b"", "code/a.py": b"import os"}))
    assert_identical(found.tensors, {"0.weight": F32, "mean": F32[2:4]})
    assert found.container == "TorchScript"
    path = tmp_path / "frozen.pt"
    path.write_bytes(
        torch_zip(Call(Name("__torch__", "Net"), (), {"training": False}, b"\x81"), **{"constants.pkl": b""})
    )
    assert "is a TorchScript program whose weights are constants without names" in message(path)


def test_modules_of_which_a_part_cannot_be_read(tmp_path):
    """Layers that PyTorch quantised are pickled as tuples, and an object of C++ in TorchScript."""
    path = tmp_path / "file.pth"
    layer = Call(Name("torch.ao.nn.quantized.modules.conv", "Conv2d"), (), (3, 8, W), b"\x81")
    path.write_bytes(torch_zip({"model": module(parameters={"weight": W}, modules={"0": layer})}, {"0": RAW}))
    assert "its part '0' is of the class 'torch.ao.nn.quantized.modules.conv.Conv2d'" in message(path)
    layer = module()
    layer.state["_packed_params"] = Call(Name("torch", "ScriptObject"), (), {}, b"\x81")
    path.write_bytes(torch_zip(module(parameters={"weight": W}, modules={"0": layer}), {"0": RAW}))
    assert "its part '0._packed_params' is of the class 'torch.ScriptObject'" in message(path)
    packed = Call(Name("__torch__.torch.classes.quantized", "Conv2dPackedParamsBase"), (), (3, W), b"\x81")
    network = Call(Name("__torch__", "Net"), (), {"conv": packed, "weight": W}, b"\x81")
    path.write_bytes(torch_zip(network, {"0": RAW}, **{"constants.pkl": b""}))
    assert "its part 'conv' is of the class '__torch__.torch.classes.quantized.Conv2dPackedParamsBase'" in message(path)


def test_modules_that_share_modules_without_end(tmp_path):
    path = tmp_path / "file.pth"
    network = module(parameters={"weight": W})
    for _ in range(40):  # 2**40 paths to one tensor
        network = module(modules={"a": network, "b": network})
    path.write_bytes(torch_zip(network, {"0": RAW}))
    assert "the names of its modules would expand to" in message(path)
    itself = module(modules={"a": None})
    itself.state["_modules"]["a"] = itself
    path.write_bytes(torch_zip(itself))
    assert "the names of its modules would expand to" in message(path)


# Averaged copies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "averaged", "raw"),
    [
        ({"state_dict": {"w": W}, "state_dict_ema": {"w": V}}, "state_dict_ema", "state_dict"),
        ({"model": {"w": W}, "model_ema": {"n_averaged": V, "module.w": V}}, "model_ema", "model"),
        ({"model": {"w": W}, "ema": {"model": {"w": V}, "decay": 0.9}}, "ema.model", "model"),
        ({"model": {"w": W}, "extra": {"ema_state_dict": {"w": V}}}, "extra.ema_state_dict", "model"),
        ({"net": {"w": W}, "modelEMA": {"w": V}}, "modelEMA", "net"),
        ({"w": W, "ema": {"w": V}}, "ema", ""),
        ({"params": {"w": W}, "params_ema": {"w": V}}, "params_ema", "params"),
        ({"model": {"w": W}, "swa_state_dict": {"w": V}}, "swa_state_dict", "model"),
        ({"ema": {"online_model.w": W, "ema_model.w": V, "step": 3}}, "ema.ema_model", None),
        ({"state_dict": {"model.w": W, "model_ema.module.w": V}}, "state_dict.model_ema", "state_dict"),
        ({"model.w": W, "loss.x": W, "ema.w": V}, "ema", ""),
        (
            {"state_dict": {"w": W}, "callbacks": {"EMACallback{'decay': 0.9}": {"state_dict": {"w": V}}}},
            "callbacks.EMACallback{'decay': 0.9}.state_dict",
            "state_dict",
        ),
        ({"state_dict": {"net.w": W, "loss.x": W}, "ema": {"w": V}}, "ema", "state_dict"),
        ({"state_dict": {"w": V}, "ema_state_dict": {"steps": V, "module.w": W}}, "state_dict", "ema_state_dict"),
    ],
)
def test_averaged_copies(tmp_path, item, averaged, raw):
    for ema in (None, True):
        found = torch_file(tmp_path, item, ema=ema)
        assert (found.tensors["w"].size, found.read_from) == (2, averaged)
        assert found.others
    if raw is None:
        with pytest.raises(CheckpointError, match="holds averaged weights only"):
            torch_file(tmp_path, item, ema=False)
        return
    found = torch_file(tmp_path, item, ema=False)
    assert found.read_from == raw and found.others
    assert [array.size for name, array in found.tensors.items() if name.endswith("w")] == [6]


@pytest.mark.parametrize(
    "item",
    [
        {"model": {"w": W, "v": W}, "model_ema": {"w": V}},  # lacks a tensor
        {"model": {"w": W}, "ema": {"decay": 0.9}},
        {"model": {"w": W}, "ema": None},
        {"model": {"w": W}, "optimizer_ema": {"w": V, "v": V}},
        {"model": {"w": W}, "schema": {"w": V}},
        {"model": {"w": W, "ema.other": V}},
        {"model.w": W, "model.v": W, "ema.w": V},
        {"state_dict": {"net.w": W, "net.v": W, "loss.x": W}, "ema": {"w": V}},
    ],
)
def test_no_complete_averaged_copy(tmp_path, item):
    found = torch_file(tmp_path, item)
    assert any(name.endswith("w") and array.size == 6 for name, array in found.tensors.items())


def test_an_averaged_copy_that_is_demanded(tmp_path):
    assert torch_file(tmp_path, {"model": {"w": W, "v": W}, "ema": {"w": V}}, ema=True).tensors["w"].size == 2
    with pytest.raises(CheckpointError, match="holds no averaged copy of its weights"):
        torch_file(tmp_path, {"model": {"w": W}}, ema=True)
    with pytest.raises(CheckpointError, match=r"holds averaged weights only \('ema'\)"):
        torch_file(tmp_path, {"ema": {"w": W}}, ema=False)


def test_the_raw_weights_of_a_real_file():
    for kind in ("zip", "legacy"):
        found = read_checkpoint(FILES / f"averaged_{kind}.pth", ema=False)
        assert_identical(found.tensors, expected("averaged_raw"))
        assert (found.read_from, found.others) == ("model", ("model_ema",))


@compiled_only
def test_load_takes_and_tells_which_weights(tmp_path):
    graph = get_architecture("mobilenet_v2").graph(0.1, 3)
    keys = naming("mobilenet_v2", "torchvision").keys(graph)
    both = {}
    for seed, name in enumerate(("state_dict", "state_dict_ema")):
        weights = random_weights(graph, seed)
        both[name] = {keys[key]: array for key, array in weights.items()}
    path = tmp_path / "both.pkl"
    path.write_bytes(pickle.dumps(both))
    x = np.ones((1, 3, 32, 32), "f4")
    alone = []
    for name, ema in (("state_dict", False), ("state_dict_ema", True)):
        (tmp_path / "one.pkl").write_bytes(pickle.dumps(both[name]))
        one, model = npmobilenet.load(tmp_path / "one.pkl"), npmobilenet.load(path, ema=ema)
        assert np.array_equal(model(x), one(x))
        assert (one.read_from, model.read_from) == ("", name)
        assert repr(model).endswith(f"both.pkl' ({name})>") and repr(one).endswith("one.pkl'>")
        alone.append(one(x))
    assert not np.allclose(*alone)
    assert np.array_equal(npmobilenet.load(path)(x), alone[1])


def test_several_networks(tmp_path):
    found = torch_file(tmp_path, {"generator": {"w": W}, "discriminator": {"v": V}, "optimizer": {"state": {"x": W}}})
    assert (list(found.tensors), found.read_from, found.others) == (["w"], "generator", ("discriminator",))
    found = torch_file(tmp_path, {"generator.w": W, "discriminator.v": V})
    assert (list(found.tensors), found.read_from, found.others) == (["generator.w", "discriminator.v"], "", ())


def test_names_of_many_state_dicts_are_bounded(tmp_path):
    found = torch_file(tmp_path, {"model": {"w": W}} | {f"{i}" + "x" * 5000: {"v": V} for i in range(200)})
    assert len(found.others) == 100 and max(map(len, found.others)) <= 200


# Quantised -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("name", ["quantised_per_tensor", "quantised_per_channel"])
def test_how_a_network_was_quantised(name, kind):
    found = read_checkpoint(FILES / f"{name}_{kind}.pth")
    assert sorted(found.quantisation) == ["0", "1", "1.weight", "4", "4.weight"]
    for layer, (scale, zero_point) in expected(f"{name}_results").items():
        result = found.quantisation[layer]
        assert (float(result.scale), int(result.zero_point)) == (np.float32(scale), zero_point)
        assert result.axis is None and result.values is None
    weight = found.quantisation["1.weight"]
    assert weight.values.dtype == np.int8 and weight.axis == (0 if "channel" in name else None)
    scale = weight.scale.reshape(-1, 1, 1, 1)
    assert np.array_equal(weight.values * scale, found.tensors["1.weight"])


def quantised(scheme, shape=(6,), kind="QInt8Storage"):
    arguments = (storage(24, kind), 0, shape, tuple(1 for _ in shape), scheme, False, {})
    return Call(Name("torch._utils", "_rebuild_qtensor"), arguments)


AFFINE, PER_CHANNEL = Name("torch", "per_tensor_affine"), Name("torch", "per_channel_affine")
SCALES = tensor(storage(6, "FloatStorage", "1"), (6,), (1,))
ZEROS = tensor(storage(3, "LongStorage", "1"), (3,), (1,))


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (quantised((AFFINE, float("nan"), 0)), "tensor 'w' has an impossible scale or zero point"),
        (quantised((AFFINE, 1.0, 2**40)), "tensor 'w' has an impossible scale or zero point"),
        (quantised((AFFINE, 1.0, 10**300)), "tensor 'w' has an impossible scale or zero point"),
        (quantised((AFFINE, 1.0)), "quantised by torch.per_tensor_affine, which is not supported"),
        (quantised((AFFINE, 1, 0)), "quantised by torch.per_tensor_affine, which is not supported"),
        (quantised((Name("torch", "per_channel_symmetric"), 1.0, 0)), "is quantised by torch.per_channel_symmetric"),
        (quantised((PER_CHANNEL, SCALES, ZEROS, 0)), "tensor 'w' of shape (6,) has scales of shape (6,) along axis 0"),
        (quantised((PER_CHANNEL, SCALES, SCALES, 1)), "along axis 1; the file is damaged"),
        (quantised((PER_CHANNEL, SCALES, SCALES, -1)), "along axis -1; the file is damaged"),
        (quantised((AFFINE, 1.0, 0), (2**20,) * 2), "needs"),
        (quantised((AFFINE, 1.0, 0), kind="QUInt4x2Storage"), "has dtype 'torch.quint4x2', which is not supported"),
        (quantised(("affine", 1.0, 0)), "arguments of unexpected types"),
        (quantised(None), "arguments of unexpected types"),
    ],
)
def test_quantised_tensors_that_do_not_fit(tmp_path, item, text):
    path = tmp_path / "file.pth"
    path.write_bytes(torch_zip({"w": item}, {"0": RAW, "1": RAW}))
    assert text in message(path)


def test_all_weights_of_a_quantised_network_become_numbers(tmp_path):
    """Four bytes from each of one, beside the integers as they are."""
    size = 12 << 20
    arguments = (storage(size, "QInt8Storage"), 0, (size,), (1,), (AFFINE, 0.5, -1), False, {})
    item = {"w": Call(Name("torch._utils", "_rebuild_qtensor"), arguments)}
    found = read_file(tmp_path, torch_zip(item, {"0": bytes(range(256)) * (size >> 8)}))
    assert found.tensors["w"][[0, 1, 127, 128, -1]].tolist() == [0.5, 1, 64, -63.5, 0]


def test_scale_is_a_name_like_others_where_nothing_is_quantised(tmp_path):
    item = {"layer.scale": V, "layer.zero_point": V, "layer.weight": W}
    assert list(torch_file(tmp_path, item).tensors) == list(item)


# Compressed files ----------------------------------------------------------------------------------------

COMPRESSORS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("kind", COMPRESSORS)
@pytest.mark.parametrize("file", ["plain_zip.pth", "plain_legacy.pth", "reference.safetensors", "reference.npz"])
def test_compressed_files(tmp_path, kind, file):
    content = COMPRESSORS[kind]((FILES / file).read_bytes())
    found = read_file(tmp_path, content)
    assert_identical(found.tensors, expected(file.replace("_zip.pth", "").replace("_legacy.pth", "")))
    assert found.container.endswith(f", compressed with {kind}")


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_several_streams_in_a_file(tmp_path, kind):
    content, compress = (FILES / "plain_zip.pth").read_bytes(), COMPRESSORS[kind]
    found = read_file(tmp_path, compress(content[:1000]) + compress(content[1000:]))
    assert_identical(found.tensors, expected("plain"))


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_compressed_files_that_are_damaged(tmp_path, kind):
    path, compress = tmp_path / "file", COMPRESSORS[kind]
    whole = compress((FILES / "plain_zip.pth").read_bytes())
    for length in range(12, len(whole), 97):
        path.write_bytes(whole[:length])
        assert "cut short" in message(path), length
    path.write_bytes(whole[:300] + bytes(200) + whole[500:])
    assert re.search(f"is compressed with {kind} and (damaged|cut short)", message(path))
    path.write_bytes(whole + b"something else")
    assert f"is compressed with {kind} and damaged" in message(path)
    path.write_bytes(compress(whole))
    assert f"is compressed twice, with {kind} and {kind}" in message(path)
    path.write_bytes(compress(b"text"))
    assert "is a text file" in message(path)
    path.write_bytes(compress(bytes(2**26)))
    assert f"its content, compressed with {kind}, would expand to 1048576 bytes" in message(path)


def test_more_streams_than_anybody_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "MAX_STREAMS", 3)
    path = tmp_path / "file"
    for kind in ("bzip2", "xz"):
        path.write_bytes(COMPRESSORS[kind](b"") * 4)
        assert f"is compressed with {kind} and damaged" in message(path)


def test_xz_that_asks_for_too_much_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "XZ_MEMORY", 1 << 20)
    (tmp_path / "file").write_bytes(lzma.compress((FILES / "plain_zip.pth").read_bytes()))
    assert "is compressed with xz and damaged" in message(tmp_path / "file")


# Folders -------------------------------------------------------------------------------------------------


def model_folder(folder, **files):
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


ONE, TWO = safetensors_bytes({"a": F32}), safetensors_bytes({"b": F32[:2], "unused": F32})
INDEX = json.dumps(
    {"metadata": {"total_size": 32}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
).encode()


def test_a_folder_of_the_hub(tmp_path):
    config = json.dumps({"id2label": {"0": "cat"}}).encode()
    files = {"config.json": config, "preprocessor_config.json": b'{"size": 224}', "model.safetensors": ONE}
    folder = model_folder(tmp_path / "hub", **files)
    for path in (folder, folder / "model.safetensors"):
        found = read_checkpoint(path)
        assert_identical(found.tensors, {"a": F32})
        assert (found.config, found.preprocessor) == ({"id2label": {"0": "cat"}}, {"size": 224})
        assert (found.notes, found.path) == ((), folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(torch_zip({"w": W}, {"0": RAW}))
    assert list(read_checkpoint(folder).tensors) == ["a"]
    (folder / "model.safetensors").unlink()
    assert list(read_checkpoint(folder).tensors) == ["w"]
    (folder / "pytorch_model.bin").rename(folder / "best.pth.tar")
    (folder / "best.pth.tar").rename(folder / "best.ckpt")
    assert list(read_checkpoint(folder).tensors) == ["w"]
    (folder / "other.pth").write_bytes(b"")
    assert "is a folder with 2 weights files ('best.ckpt', 'other.pth'); name one of them" in message(folder)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b"{", "config.json beside it was passed over: config.json is not valid JSON"),
        (b"[1]", "config.json beside it was passed over: config.json is not a JSON object"),
        (b'{"a": "\xff"}', "config.json beside it was passed over: config.json is not valid JSON"),
        (b'{"a": NaN}', "config.json beside it was passed over"),
        (b'{"a": ' + b"9" * 5000 + b"}", "an integer of 5000 digits"),
        (b"[" * 10**5, "nested too deeply"),
        (b" " * (2**24 + 1), "config.json beside it has more than 16 MiB, so it was not read"),
        (None, "config.json beside it is not a regular file, so it was not read"),
    ],
)
def test_a_config_that_cannot_be_read_is_a_note(tmp_path, content, note):
    folder = model_folder(tmp_path / "hub", **{"model.safetensors": ONE})
    if content is None:
        (folder / "config.json").mkdir()
    else:
        (folder / "config.json").write_bytes(content)
    found = read_checkpoint(folder)
    assert found.config == {} and len(found.notes) == 1 and note in found.notes[0]
    assert found.notes[0].isprintable()


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_weights_in_several_files(tmp_path, kind):
    files = {"1.safetensors": ONE, "2.safetensors": TWO, "model.safetensors.index.json": INDEX}
    if kind == "torch":
        one, two = torch_zip({"a": W}, {"0": RAW}), torch_zip({"b": tensor(storage(6), (2,), (1,))}, {"0": RAW})
        files = {"1.safetensors": one, "2.safetensors": two, "pytorch_model.bin.index.json": INDEX}
    folder = model_folder(tmp_path / "hub", **files)
    for path in (folder, folder / list(files)[-1]):
        found = read_checkpoint(path)
        assert_identical(found.tensors, {"a": F32, "b": F32[:2]})
        assert found.container == "an index of 2 files"


@pytest.mark.parametrize(
    ("places", "text"),
    [
        ({"a": "../1.safetensors"}, "its index places tensor 'a' in '../1.safetensors', which is no file's name"),
        ({"a": "/etc/passwd"}, "which is no file's name"),
        ({"a": "sub/1.safetensors"}, "which is no file's name"),
        ({"a": "..\\1.safetensors"}, "which is no file's name"),
        ({"a": "C:1.safetensors"}, "which is no file's name"),
        ({"a": ".."}, "which is no file's name"),
        ({"a": "."}, "which is no file's name"),
        ({"a": ""}, "which is no file's name"),
        ({"a": "x\0"}, "which is no file's name"),
        ({"a": 7}, "its index places tensor 'a' in a int, which is no file's name"),
        ({"a\x1b[2J": 7}, r"its index places tensor 'a\x1b[2J' in"),
        ({"a": "3.safetensors"}, "its file '3.safetensors' does not exist"),
        ({"b": "1.safetensors"}, "its file '1.safetensors' lacks 1 tensor: b"),
        ({"a": "i.index.json"}, "its file 'i.index.json' is an index itself"),
        ({"a": "folder"}, "its file 'folder' is not a regular file"),
        ({str(i): str(i) for i in range(1001)}, "its index lists 1001 files; 1000 at most are read"),
        ({}, "its index has no weight_map"),
        (["a"], "its index has no weight_map"),
    ],
)
def test_an_index_is_not_believed(tmp_path, places, text):
    index = json.dumps({"weight_map": places}).encode()
    folder = model_folder(tmp_path / "hub", **{"1.safetensors": ONE, "i.index.json": index})
    (folder / "folder").mkdir()
    (tmp_path / "1.safetensors").write_bytes(ONE)
    assert text in message(folder / "i.index.json")


def test_an_index_that_leads_to_itself(tmp_path):
    index = json.dumps({"weight_map": {"a": "index.gz"}}).encode()
    folder = model_folder(tmp_path / "hub", **{"i.index.json": index, "index.gz": gzip.compress(index)})
    text = message(folder / "i.index.json")
    assert "its file 'index.gz' is an index compressed with gzip; decompress it first" in text


def test_shards_share_an_allowance(tmp_path):
    item = {"a": tensor(storage(6), (2**21,), (0,))}  # 8 MiB of one number
    files = {f"{i}.bin": torch_zip({f"{i}": item["a"]}, {"0": RAW}) for i in range(3)}
    index = json.dumps({"weight_map": {f"{i}": f"{i}.bin" for i in range(3)}}).encode()
    folder = model_folder(tmp_path / "hub", **files, **{"pytorch_model.bin.index.json": index})
    with pytest.raises(CheckpointError, match=r"would expand to 8388608 bytes"):
        read_checkpoint(folder)


# Work ----------------------------------------------------------------------------------------------------

BODIES = {
    "dicts": b"}" * 3_900_000,
    "lists": b"]" * 3_900_000,
    "dicts kept": b"(" + b"}" * 3_900_000 + b"l",
    "names": b"ca\nb\n" * 3_000_000,
    "functions": b"cdatetime\ndate\n" * 700_000,
    "calls": b"ccollections\nOrderedDict\n)R" * 200_000,
}


@pytest.mark.parametrize("name", BODIES)
def test_work_follows_the_size_of_the_file(tmp_path, name, monkeypatch):
    """Opcodes are counted, not seconds: a deflated pickle may not have more than its file has bytes, and 100,000."""
    content = zip_bytes({"a/data.pkl": b"\x80\x02" + BODIES[name] + b"."}, zipfile.ZIP_DEFLATED)
    made, take = [], allowance.Allowance.take_opcode

    def counted(self, nbytes):
        made.append(nbytes)
        take(self, nbytes)

    monkeypatch.setattr(allowance.Allowance, "take_opcode", counted)
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    text = message(path)
    assert "opcodes, the limit of a file of this size" in text or "would expand to" in text
    assert len(made) <= 100_001 + len(content)
    assert sum(made) <= 2**24 + 8 * len(content) + 1000


def test_an_uncompressed_pickle_has_opcodes_enough(tmp_path):
    item = {"history": [float(i) for i in range(200_000)], "w": W}
    assert_identical(torch_file(tmp_path, item).tensors, {"w": F32})


def test_names_that_are_put_together_again_and_again(tmp_path):
    body = b"\x80\x04X\x40\x42\x0f\x00" + b"a" * 1_000_000 + b"\x94" + b"h\x00h\x00\x930" * 100_000 + b"}."
    path = tmp_path / "file.pth"
    path.write_bytes(torch_zip(body))
    assert "names a Python object by 2000000 characters" in message(path)


def test_arguments_that_are_copied_again_and_again(tmp_path):
    body = b"\x80\x02(" + b"N" * 100_000 + b"tq\x00ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00R0" * 1000 + b"}."
    path = tmp_path / "file.pth"
    path.write_bytes(torch_zip(body))
    assert "calls collections.OrderedDict with 100000 arguments" in message(path)
