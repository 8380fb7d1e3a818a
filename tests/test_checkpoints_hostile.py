"""Damaged, foreign and hostile files end in one clear line; nothing is run and little memory is used."""

import json
import os
import pickle
import struct
import sys
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npmobilenet.checkpoints import allowance, read_checkpoint
from npmobilenet.errors import CheckpointError
from tests.checkpoint_files import (
    Call,
    Name,
    Persistent,
    npy,
    pickled,
    safetensors,
    storage,
    tensor,
    torch_legacy,
    torch_zip,
    zip_bytes,
)
from tests.conftest import no_kernels
from tests.test_checkpoints import F32, FILES, message

pytestmark = no_kernels

RAW = F32.tobytes()
W = tensor(storage(6), (6,), (1,))


@pytest.fixture
def refusal(tmp_path):
    """Write bytes to a file and return what is said about them; bounded in time and memory."""

    def refuse(content, name="file.bin", seconds=10, megabytes=64):
        path = tmp_path / name
        path.write_bytes(content)
        tracemalloc.start()
        start = time.perf_counter()
        try:
            text = message(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(text) < 700
        assert time.perf_counter() - start < seconds
        assert peak < megabytes * 2**20 + 20 * len(content), f"{peak / 2**20:.0f} MiB"
        return text

    return refuse


# Truncation and random damage ---------------------------------------------------------------------------

WHOLE = [
    "plain_zip.pth",
    "plain_legacy.pth",
    "views_legacy.pth",
    "reference.safetensors",
    "reference.npz",
    "compressed.npz",
]


@pytest.mark.parametrize("file", WHOLE)
def test_cut_anywhere(tmp_path, file):
    content = (FILES / file).read_bytes()
    path = tmp_path / file
    for length in range(len(content)):
        path.write_bytes(content[:length])
        text = message(path)
        assert any(
            word in text for word in ("cut short", "damaged", "empty", "unknown format", "is a pickle", "text file")
        ), (length, text)


@pytest.mark.parametrize(
    "file", [*WHOLE, "training_legacy.pth", "training_zip.pth", "dtypes_zip.pth", "parameters_zip.pth"]
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_damage_is_read_or_refused(tmp_path, file, changes):
    content = bytearray((FILES / file).read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    path = tmp_path / file
    path.write_bytes(content)
    try:
        tensors = read_checkpoint(path).tensors
    except CheckpointError as error:
        assert str(error).isprintable()
        assert str(error).startswith(str(path))
    else:
        assert all(array.dtype.kind in "fiub" for array in tensors.values())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.lists(
        st.sampled_from(
            [bytes([n]) for n in range(256)]
            + [
                b"ctorch\nSize\n",
                b"ccollections\nOrderedDict\n",
                b"ctorch._utils\n_rebuild_tensor_v2\n",
                b"ctorch\nFloatStorage\n",
                b"X\x01\0\0\0a",
            ]
        ),
        max_size=40,
    )
)
def test_any_pickle_is_refused(tmp_path, body):
    path = tmp_path / "file.bin"
    path.write_bytes(torch_zip(b"\x80\x02" + b"".join(body) + b"."))
    assert message(path)


# Other files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty (0 bytes)"),
        (b"\n<!DOCTYPE html><html><body>404", "is an HTML page: a failed download"),
        (b"<HTML>", "is an HTML page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "is a git-lfs pointer, not the file itself; run 'git lfs pull'",
        ),
        (b"hello, world\n", "is a text file that begins with 'hello, world"),
        (b'{"error": "not found"}', 'is a text file that begins with \'{"error"'),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "is an HDF5 file (Keras .h5)"),
        (b"GGUF\x03\0\0\0" + bytes(20), "is a GGUF file"),
        (b"\x1c\0\0\0TFL3" + bytes(20), "is cut short or damaged: an offset in it leads outside"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.0.0", "is an ONNX model, more than weights"),
        (
            b"\x0a\x1d\x0a\x05input\x12\x0bPlaceholder",
            "is cut short or damaged: a field should have 29 bytes, 20 follow",
        ),
        (b"\x0a\x14\x0a\x05input\x12\x0bPlaceholder", "is a TensorFlow graph without weights: freeze it"),
        (b"\x08\x01\x12\x80\x02\x0a", "is probably a TensorFlow graph (.pb)"),
        (bytes(40) + struct.pack("<Q", 0xDB4775248B80FB57), "is a TensorFlow checkpoint"),
        (b"\x93NUMPY\x01\0" + bytes(20), "its array has a header that is no plain array's"),
        (npy("<f4", "(6,)", RAW), "is a single NumPy array (.npy); save named arrays with numpy.savez"),
        (npy("<U6", "()", RAW), "is a single NumPy array (.npy); save named arrays with numpy.savez"),
        (b"\x1f\x8b\x08" + bytes(20), "is compressed with gzip and damaged"),
        (bytes(257) + b"ustar" + bytes(50), "is a tar archive"),
        (b"PK\x05\x06" + bytes(18), "is an empty zip archive"),
        (b"\x89PNG\r\n\x1a\n", "is of an unknown format (it begins with bytes 89 50 4e 47 0d 0a 1a 0a)"),
        (zip_bytes({"w/model.pth": b""}), "is a zip archive around 'w/model.pth'; unpack it first"),
        (zip_bytes({"model.weights.h5": b"", "config.json": b""}), "is a Keras model (.keras)"),
        (
            zip_bytes({"word/document.xml": b""}),
            "is a zip archive that is no checkpoint (it holds 'word/document.xml')",
        ),
        (pickle.dumps({"w": [1.0]}, 2), "holds no tensors (but 'w'); save model.state_dict()"),
        (pickle.dumps({"w": [1.0]}, 4), "holds no tensors (but 'w'); save model.state_dict()"),
        (pickle.dumps(np.ones(3), 5), "holds a single array, not a state dict"),
        (pickle.dumps([np.ones(3)], 0), "holds a list, not a state dict"),
        (pickled({"w": W}), "is a pickle that refers to objects outside of it, and torch.save did not write it"),
    ],
)
def test_files_of_another_kind(refusal, content, text):
    assert text in refusal(content)


def test_tensorflow_data_file_is_known_by_name(refusal):
    assert "is a TensorFlow checkpoint" in refusal(bytes(99), "model.ckpt-1.data-00000-of-00001")


def test_paths_that_are_no_readable_file(tmp_path, monkeypatch):
    assert "is a folder without weights (looked for model.safetensors, " in message(tmp_path)
    assert "does not exist" in message(tmp_path / "missing.pth")
    with pytest.raises(CheckpointError, match=r"^a\\x00b: cannot be read \(.*embedded null"):
        read_checkpoint("a\0b")
    os.mkfifo(tmp_path / "fifo")
    assert "is not a regular file" in message(tmp_path / "fifo")
    present = tmp_path / "present.pth"
    present.write_bytes(b"x")

    def denied(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert "may not be read (permission denied)" in message(present)


def test_a_path_with_a_newline_still_gives_one_line(tmp_path):
    with pytest.raises(CheckpointError, match=r"two\\nlines\.pth.*does not exist") as caught:
        read_checkpoint(tmp_path / "two\nlines.pth")
    assert str(caught.value).isprintable()


def test_a_huge_foreign_file_is_not_read(tmp_path):
    path = tmp_path / "huge.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF")
        file.truncate(2**36)  # sparse
    assert "is a GGUF file" in message(path)


# Pickles ------------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return os.mkdir, ("never",)


@pytest.mark.parametrize("make", [torch_zip, torch_legacy])
def test_nothing_is_run(refusal, make, monkeypatch):
    content, calls = make(pickle.dumps({"w": Evil()}, 2)), []
    module = sys.modules[os.mkdir.__module__]
    monkeypatch.setattr(module, "mkdir", lambda *arguments: calls.append(arguments))
    text = refusal(content)
    assert f"refers to the Python object '{module.__name__}.mkdir'" in text and not calls
    assert "nothing of it was imported or run" in text


@pytest.mark.parametrize("opcode", [pickle.REDUCE, pickle.NEWOBJ])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("collections", "namedtuple"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("numpy", "load"),
        ("torch.storage", "_load_from_bytes"),
    ],
)
def test_other_globals_are_passed_over(refusal, tmp_path, opcode, module, name):
    called = Call(Name(module, name), ("x",), {"a": 1}, opcode)
    for item in (called, Name(module, name)):
        text = refusal(torch_zip({"a": item}))
        assert f"refers to the Python object '{module}.{name}', and nothing of it was imported or run" in text
        (tmp_path / "beside.pth").write_bytes(torch_zip({"a": item, "w": W}, {"0": RAW}))
        found = read_checkpoint(tmp_path / "beside.pth")
        assert list(found.tensors) == ["w"]
        assert found.notes == (f"refers to Python objects, none of them imported or run: {module}.{name}",)


def test_calls_in_place_of_a_tensor_s_parts(refusal):
    evil = Call(Name("os", "system"), ("x",))
    for item in (
        tensor(evil, (6,), (1,)),
        tensor(storage(6), evil, (1,)),
        tensor(storage(6), (6,), (1,), "0", "_rebuild_tensor_v3", (False, {}, evil)),
        Call(Name("torch._utils", "_rebuild_parameter"), (evil, True, {})),
        Call(Name("torch._utils", "_rebuild_qtensor"), (storage(6), 0, (6,), (1,), (evil, 1.0, 0), False, {})),
        Call(Name("numpy", "dtype"), ("f4", False, True), evil),
        Call(Name("numpy.core.multiarray", "scalar"), (evil, b"")),
        Call(Name("_codecs", "encode"), (evil, "latin1")),
        Call(Name("_codecs", "encode"), ("text", "rot13")),
        Call(Name("copyreg", "_reconstructor"), ("x", None, None)),
        Call(Name("torch", "Size"), (evil,)),
    ):
        text = refusal(torch_zip({"a": item}, {"0": RAW}))
        assert "unexpected types" in text or "is damaged" in text or "impossible sizes" in text
    for argument in (evil, b"", pickled({"w": 1}), pickled({"w": W}, 4)):
        text = refusal(pickled({"a": Call(Name("torch.storage", "_load_from_bytes"), (argument,))}, 4))
        assert "unexpected types" in text or "is cut short" in text or "refers to objects outside of it" in text


def test_attributes_of_foreign_objects(refusal):
    body = b"\x80\x04}\x8c\x01a\x8c\x02os\x8c\x06system\x93)R\x8c\x01bs."
    assert "is damaged at byte" in refusal(torch_zip(body))
    assert "'me.Config'" in refusal(torch_zip({"a": Call(Name("me", "Config"), (), {"x": 1}, b"\x81")}))
    assert "'me.Config'" in refusal(torch_zip(b"\x80\x02cme\nConfig\n}b."))


def test_modules_without_weights(refusal):
    text = refusal(torch_zip(Call(Name("torch.nn.modules.conv", "Conv2d"), (), {}, pickle.NEWOBJ)))
    assert "holds an object of the Python class 'torch.nn.modules.conv.Conv2d' without tensors" in text
    module = Persistent(("module", Name("me", "Net"), "net.py", "import os"))
    assert "holds the Python object 'me.Net', not a state dict" in refusal(torch_legacy(module))


HUGE = 2**62
BAD_TENSORS = [
    (
        tensor(storage(6), (7,), (1,)),
        "tensor 'w' of shape (7,) and strides (1,) at offset 0 needs 28 bytes, but its storage has 24",
    ),
    (tensor(storage(6), (6,), (1,), 1), "at offset 1 needs 28 bytes"),
    (tensor(storage(6), (2, 2), (5, 1)), "needs 28 bytes"),
    (tensor(storage(6), (6,), (1,), -1), "tensor 'w' has impossible sizes"),
    (tensor(storage(6), (-6,), (1,)), "tensor 'w' has impossible sizes"),
    (tensor(storage(6), (2,), (-1,), 5), "tensor 'w' has impossible sizes"),
    (tensor(storage(6), (HUGE, 4), (0, 1)), "tensor 'w' has impossible sizes"),
    (tensor(storage(6), (2**39, 2**39), (0, 0)), "tensor 'w' has an impossible shape"),
    (tensor(storage(6), (0, 2**39, 2**39), (1, 1, 1)), "tensor 'w' has an impossible shape"),
    (tensor(storage(6), (1,) * 40, (1,) * 40), "impossible shape of 40 dimensions"),
    (tensor(storage(6), (2**39,), (0,)), f"tensor 'w' would expand to {2**41} bytes"),
    (tensor(storage(6), (2, 3), (1,)), "tensor 'w' has 1 strides for (2, 3)"),
    (tensor(storage(6), (True,), (1,)), "tensor 'w' has impossible sizes"),
    (tensor(storage(6), (6.0,), (1,)), "tensor 'w' has impossible sizes"),
    (tensor(storage(6), (6,), (1,), None), "tensor 'w' has impossible sizes"),
    (
        tensor(storage(6), [6], (1,)),
        "calls torch._utils._rebuild_tensor_v2 with 6 arguments of unexpected types",
    ),
    (tensor("storage", (6,), (1,)), "arguments of unexpected types"),
    (
        tensor(storage(6), (6,), (1,), 0, "_rebuild_tensor_v3", (False, {}, "float32")),
        "torch._utils._rebuild_tensor_v3 with 7 arguments of unexpected",
    ),
    (
        tensor(storage(6), (6,), (1,), 0, "_rebuild_tensor_v2", (False, {}, {"neg": True})),
        "tensor 'w' is a lazily conjugated or negated tensor",
    ),
    (
        Call(Name("torch._utils", "_rebuild_parameter"), ("x", True, {})),
        "torch._utils._rebuild_parameter with 3 arguments",
    ),
    (
        Call(Name("torch._utils", "_rebuild_tensor_v2"), ()),
        "torch._utils._rebuild_tensor_v2 with 0 arguments",
    ),
    (Call(Name("collections", "OrderedDict"), ([1],)), "collections.OrderedDict with 1 arguments"),
    (Call(Name("torch", "float32"), ()), "its pickle is damaged at byte"),
    (Call("text", ()), "its pickle is damaged at byte"),
    (Persistent("0"), "has a persistent id that is not a tensor's storage"),
    (Persistent(None), "has a persistent id that is not a tensor's storage"),
    (
        Persistent(("storage", Name("torch", "FloatStorage"), ["0"], "cpu", 6)),
        "has a persistent id that is not",
    ),
    (Persistent(("storage", "FloatStorage", "0", "cpu", 6)), "has a persistent id that is not"),
    (storage(-6), "has a persistent id that is not"),
    (storage(HUGE * 4), "has a persistent id that is not"),
    (storage(7), "storage '0' should have 7 elements of torch.float32 (28 bytes) but has 24 bytes"),
    (storage(5), "storage '0' should have 5 elements of torch.float32 (20 bytes) but has 24 bytes"),
    (storage(HUGE), f"storage '0' should have {HUGE} elements of torch.float32"),
    (storage(6, "NoSuchStorage"), "'torch.NoSuchStorage'"),
    (storage(6, key="9"), "zip member 'archive/data/9' is missing"),
    (storage(6, key="../../etc/passwd"), "zip member 'archive/data/../../etc/passwd' is missing"),
    (storage(6, key="n\n" * 99), "is missing"),
]


@pytest.mark.parametrize(("item", "text"), BAD_TENSORS)
def test_tensors_that_do_not_fit(refusal, item, text):
    assert text in refusal(torch_zip({"w": item}, {"0": RAW}))


def test_many_small_lies_share_one_allowance(refusal):
    item = {f"w{i}": tensor(storage(6), (2**20,), (0,)) for i in range(8)}  # 8 × 4 MiB of one number
    text = refusal(torch_zip(item, {"0": RAW}))
    assert "tensor 'w4' would expand to 4194304 bytes" in text or "tensor 'w3'" in text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b".", "is damaged at byte"),
        (b"h\x05.", "is damaged at byte 4 (KeyError)"),
        (b"j\xff\xff\xff\xff.", "is damaged at byte 7 (KeyError)"),
        (b"t.", "is damaged"),
        (b"R.", "is damaged"),
        (b"N)R.", "is damaged"),
        (b"}NNNu.", "is damaged"),
        (b"}(NNNu.", "is damaged"),
        (b"]K\x01s.", "is damaged"),
        (b"NK\x01a.", "is damaged"),
        (b"\x85.", "is damaged"),
        (b"b.", "is damaged"),
        (b"X\x02\0\0\0\xff\xfe.", "is damaged at byte 9 (UnicodeDecodeError)"),
        (b"I" + b"9" * 99 + b"\n.", "is damaged"),
        (b"Ix\n.", "is damaged"),
        (b"B\xff\xff\xff\xff.", "is cut short: it ends inside its pickle"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "is cut short"),
        (b"\x8d\0\0\0\0\0\x01\0\0.", "is cut short"),
        (b"\x96\0\0\0\0\0\x01\0\0.", "is cut short"),
        (b"T\xff\xff\xff\xff.", "is cut short"),
        (b"ctorch", "is cut short"),
        (b"ios\nsystem\n.", "is damaged"),
        (b"(ios\nsystem\n.", "holds an object of the Python class 'os.system' without tensors"),
        (b"(cos\nsystem\no.", "holds an object of the Python class 'os.system' without tensors"),
        (b"(o.", "is damaged"),
        (b"S'a\n.", "is damaged"),
        (b"Sa\n.", "is damaged"),
        (b"F1.5x\n.", "is damaged"),
        (b"F" + b"1" * 99 + b"\n.", "is damaged"),
        (b"V\\u12\n.", "is damaged"),
        (b"g7\n.", "is damaged"),
        (b"p0\n.", "is damaged"),
        (b"P0\n.", "has opcode 0x50 at byte 2, which is none that weights are saved with"),
        (b"\x82\x01.", "has opcode 0x82"),
        (b"\x97.", "has opcode 0x97"),
        (b"\x8b\x04\0\0\0\xff\xff\xff\xff.", "has opcode 0x8b"),
        (b"K\x01.", "holds a int, not a state dict"),
        (b"}.", "holds no tensors (but nothing)"),
        (b"", "is cut short: it ends inside its pickle"),
    ],
)
def test_pickles_that_are_no_program(refusal, body, text):
    assert text in refusal(torch_zip(b"\x80\x02" + body))


def test_bombs_in_pickles(refusal):
    memo = b"N" + b"r\xff\xff\xff\xff" + b"0"  # CPython's own machine would allocate 32 GiB here
    assert "holds no tensors" in refusal(torch_zip(b"\x80\x02" + memo + b"}."))
    nested = b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s."  # as a key: hashed recursively
    assert "holds no tensors" in refusal(torch_zip(nested))
    shared = b"\x80\x02})" + b"2\x86" * 50_000 + b"K\x01s."  # 2**50000 paths to the end
    assert "holds no tensors" in refusal(torch_zip(shared))
    itself = b"\x80\x02}q\x00X\x05\0\0\0modelh\x00s."
    assert "holds no tensors (but 'model')" in refusal(torch_zip(itself))
    lists = b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."
    assert "holds a list" in refusal(torch_zip(lists))
    dicts = b"\x80\x02" + b"}U\x05model" * 50_000 + b"}" + b"s" * 50_000 + b"."
    assert "holds no tensors (but 'model')" in refusal(torch_zip(dicts))
    diamond = b"\x80\x02}" + b"".join(b"q\x00}U\x01ah\x00sU\x01bh\x00s" for _ in range(2000)) + b"."
    assert "holds no tensors" in refusal(torch_zip(diamond))
    # Repeating a call must not repeat its argument: 10 000 × a list of 10 000 pairs
    pairs = b"](" + b"(U\x01aNt" * 10_000 + b"eq\x00"
    copies = b"ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00\x85R" * 10_000
    assert "holds no tensors" in refusal(torch_zip(b"\x80\x02" + pairs + copies + b"}."))
    rebuild = b"ctorch._tensor\n_rebuild_from_type_v2\nq\x000"
    deep = b"h\x00(" * 20_000 + b"h\x00(NN)Nt" + b"NNt" * 20_000
    assert refusal(torch_zip(b"\x80\x02" + rebuild + deep + b"R."))


def test_opcodes_are_counted(refusal, monkeypatch):
    content = torch_zip(b"\x80\x02" + b"N0" * 500 + b"}.")  # 1 + 1000 + 1 opcodes and STOP
    monkeypatch.setattr(allowance, "OPCODES_BASE", 0)
    monkeypatch.setattr(allowance, "MAX_OPCODES", 1002)
    assert "holds no tensors" in refusal(content)
    monkeypatch.setattr(allowance, "MAX_OPCODES", 1001)
    assert "its pickles have more than 1001 opcodes" in refusal(content)


def test_hostile_names_are_shown_short_and_on_one_line(refusal):
    item = {"a\n\x1b[31m" + "b" * 5000: tensor(storage(6, "ComplexFloatStorage"), (1,), (1,))}
    text = refusal(torch_zip(item, {"0": RAW * 2}))
    assert r"tensor 'a\n\x1b[31mbbb" in text and "…'" in text


# The legacy format ---------------------------------------------------------------------------------------

LW = tensor(storage(6, view=(None,)), (6,), (1,))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            torch_legacy({"w": LW}, [("0", 7, RAW)]),
            "storage '0' should have 7 elements of torch.float32 (28 bytes) but has 24",
        ),
        (torch_legacy({"w": LW}, [("0", -1, RAW)]), "storage '0' should have -1 elements"),
        (torch_legacy({"w": LW}, [("0", 6, RAW[:-1])]), "is cut short: storage '0' ends at byte"),
        (
            torch_legacy({"w": LW}, [("1", 6, RAW)]),
            "its list of storages is not the set that its tensors use",
        ),
        (torch_legacy({"w": LW}, [("0", 6, RAW)], keys=["0", "0"]), "its list of storages is not the set"),
        (torch_legacy({"w": LW}, [("0", 6, RAW)], keys=[["0"]]), "its list of storages is not the set"),
        (torch_legacy({"w": LW}, [("0", 6, RAW)], keys=7), "its list of storages is not the set"),
        (
            torch_legacy({"w": tensor(storage(HUGE, view=(None,)), (1,), (1,))}, [("0", HUGE, RAW)]),
            "is cut short: storage '0' ends at byte",
        ),
        (
            torch_legacy({"w": tensor(storage(6, view=(("1", 4, 3),)), (1,), (1,))}, [("0", 6, RAW)]),
            "a view of storage '0' reaches beyond it",
        ),
        (
            torch_legacy({"w": tensor(storage(6, view=(("1", -1, 3),)), (1,), (1,))}, [("0", 6, RAW)]),
            "has a persistent id that is not",
        ),
        (
            torch_legacy({"w": tensor(storage(6, view=((),)), (1,), (1,))}, [("0", 6, RAW)]),
            "has a persistent id that is not",
        ),
        (
            torch_legacy({"w": LW, "v": storage(5, view=(None,))}, [("0", 6, RAW)]),
            "storage '0' should have 5 elements",
        ),
        (torch_legacy({"w": LW}).replace(b"M\xe9\x03", b"M\xea\x03", 1), "its protocol version is not 1001"),
    ],
)
def test_legacy_files(refusal, content, text):
    assert text in refusal(content)


# Zip archives --------------------------------------------------------------------------------------------


def test_zip_directories_that_lie(refusal):
    honest = torch_zip({"w": W}, {"0": RAW})
    entry = honest.rindex(b"PK\x01\x02")  # the directory entry of data/0: the last one
    assert honest[entry + 46 :].startswith(b"archive/data/0")

    def lie(offset, value, size="<I"):
        return honest[: entry + offset] + struct.pack(size, value) + honest[entry + offset + struct.calcsize(size) :]

    assert "zip member 'archive/data/0' should have 2147483647 bytes but has 24" in refusal(lie(24, 2**31 - 1))
    assert "should have 0 bytes but has 24" in refusal(lie(24, 0))
    assert "zip member 'archive/data/0' does not lie inside the file" in refusal(lie(20, 2**31 - 1))
    assert "zip member 'archive/data/0' does not lie inside the file" in refusal(lie(42, 2**31 - 1))
    assert "does not lie inside the file" in refusal(lie(42, 3))
    assert "zip member 'archive/data/0' overlaps another one" in refusal(lie(42, 0))
    assert "uses compression method 12" in refusal(lie(10, 12, "<H"))
    assert "is encrypted" in refusal(lie(8, 1, "<H"))
    assert "cannot be decompressed" in refusal(lie(10, 8, "<H"))


def test_a_flipped_bit_of_a_weight_is_seen(refusal, tmp_path):
    honest = torch_zip({"w": W}, {"0": RAW})
    at = honest.index(RAW)
    flipped = honest[:at] + bytes([honest[at] ^ 1]) + honest[at + 1 :]
    assert "zip member 'archive/data/0' does not match its checksum: the file is damaged" in refusal(flipped)
    # torch.serialization.set_crc32_options(False) writes no checksums, that is 0
    (tmp_path / "unchecked.pth").write_bytes(honest.replace(struct.pack("<I", zlib.crc32(RAW)), bytes(4)))
    assert np.array_equal(read_checkpoint(tmp_path / "unchecked.pth").tensors["w"], F32.ravel())


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name(refusal):
    pair = [("a/data.pkl", pickled({"w": W})), ("a/data/0", RAW), ("a/data/0", RAW)]
    assert "is a zip archive with two members of one name" in refusal(zip_bytes(pair))


def test_zip_bombs(refusal):
    bomb = zip_bytes({"w.npy": npy("<f4", f"({2**24},)", bytes(2**26))}, zipfile.ZIP_DEFLATED)
    assert "compressed zip member 'w.npy' would expand to 671" in refusal(bomb)
    body = zip_bytes({"a/data.pkl": pickled({"w": W}), "a/data/0": bytes(2**26)}, zipfile.ZIP_DEFLATED)
    assert "compressed zip member 'a/data/0' would expand to 67108864 bytes" in refusal(body)
    # Declared small, inflating to 64 MiB: stopped one byte beyond the declaration
    liar = body.replace(struct.pack("<I", 2**26), struct.pack("<I", 24))
    assert "zip member 'a/data/0' should have 24 bytes but has 25" in refusal(liar)
    assert len(zlib.compress(bytes(2**26))) < len(body) < 2**17


def test_zip_records(refusal):
    assert "its byteorder record is neither" in refusal(torch_zip({"w": W}, {"0": RAW}, byteorder=b"middle"))
    two = zip_bytes({"a/data.pkl": b"", "b/data.pkl": b""})
    assert "is a zip archive that is no checkpoint" in refusal(two)


# .npz ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "text"),
    [
        (
            npy("|O", "(1,)", pickle.dumps([Evil()])),
            "refers to the Python object",
        ),
        (npy("<f4", f"({10**12},)", RAW), f"shape ({10**12},) should have {4 * 10**12} bytes but has 24"),
        (npy("<f4", f"({10**18}, {10**18})", RAW), "bytes but has 24"),
        (npy("<f4", f"({', '.join(['9' * 19] * 300)},)", RAW), "impossible sizes"),
        (npy("<f4", "(5,)", RAW), "should have 20 bytes but has 24"),
        (npy("<f4", "(-6,)", RAW), "array 'w' has a header that is no plain array's"),
        (npy("<f4", "(" * 500 + ")" * 500, RAW), "array 'w' has a header that is no plain array's"),
        (npy([("x", "<f4")], "(6,)", RAW), "structured arrays are not supported"),
        (npy("<c8", "(3,)", RAW), "tensor 'w' has dtype '<c8', which is not supported"),
        (npy("<U6", "()", RAW), "holds no tensors"),
        (npy("<f3", "(8,)", RAW), "tensor 'w' has dtype '<f3', which is not supported"),
        (npy("<b8", "(3,)", RAW), "tensor 'w' has dtype '<b8', which is not supported"),
        (npy("<f4", "(0, 99999999999999)", b""), "tensor 'w' has impossible sizes"),
        (npy("<f4", "(6,)", RAW)[:9], "array 'w' is not in the .npy format"),
        (npy("<f4", "(6,)", RAW, version=b"\x09\x00"), "array 'w' is not in the .npy format"),
        (b"nonsense", "array 'w' is not in the .npy format"),
    ],
)
def test_npz_members(refusal, member, text):
    assert text in refusal(zip_bytes({"w.npy": member}))


@pytest.mark.parametrize(
    ("member", "text"),
    [
        (npy("<f4", "()", b"\0\0\0\0"), "its __metadata__ is not one text"),
        (npy("<U9", "()", b"\0\0\0\0"), "its __metadata__ is not one text"),
        (npy("<U1", "()", b"\xff\xff\xff\xff"), "its __metadata__ is not valid text"),
        (npy("<U2", "()", "[]".encode("utf-32-le")), "its metadata is not a JSON object"),
        (npy("<U1", "()", "{".encode("utf-32-le")), "its metadata is not valid JSON"),
        (npy("<U17", "()", '{"npmobilenet":7}'.encode("utf-32-le")), "its metadata is not a JSON object"),
    ],
)
def test_npz_metadata(refusal, member, text):
    assert text in refusal(zip_bytes({"w.npy": npy("<f4", "(6,)", RAW), "__metadata__.npy": member}))


def test_an_npz_without_arrays(refusal):
    text = "{}".encode("utf-32-le")
    assert "holds no tensors" in refusal(zip_bytes({"__metadata__.npy": npy("<U2", "()", text)}))


# safetensors ---------------------------------------------------------------------------------------------


def entry(dtype="F32", shape=(6,), offsets=(0, 24)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (
            {"w": entry(offsets=(0, 28))},
            "is cut short: its header announces 28 bytes of tensors, the file has 24",
        ),
        (
            {"w": entry(shape=(5,), offsets=(0, 20))},
            "has bytes that belong to no tensor: its header announces 20",
        ),
        (
            {"w": entry(shape=(3,), offsets=(12, 24))},
            "tensor 'w' begins at byte 12 of the data where byte 0 was expected",
        ),
        (
            {"w": entry(), "v": entry(shape=(3,), offsets=(12, 24))},
            "tensor 'v' begins at byte 12 of the data where byte 24",
        ),
        ({"w": entry(shape=(7,))}, "tensor 'w' of F32 and shape (7,) has 24 bytes instead of 28"),
        ({"w": entry(shape=(2**62, 2**62))}, "has 24 bytes instead of"),
        ({"w": entry(shape=(1,) * 33 + (6,))}, "impossible shape of 34 dimensions"),
        (
            {"w": entry(shape=(-6,))},
            "tensor 'w' is not described by a dtype, a shape and two ascending data_offsets",
        ),
        ({"w": entry(shape=(6.0,))}, "tensor 'w' is not described by"),
        ({"w": entry(shape=(True,))}, "tensor 'w' is not described by"),
        ({"w": entry(offsets=(24, 0))}, "tensor 'w' is not described by"),
        ({"w": entry(offsets=(0, 24, 24))}, "tensor 'w' is not described by"),
        ({"w": entry(offsets=(0, 2**64))}, "tensor 'w' is not described by"),
        ({"w": {**entry(), "dtype": ["F32"]}}, "tensor 'w' is not described by"),
        ({"w": [1]}, "tensor 'w' is not described by"),
        ({"w": entry(dtype="F8_E4M3")}, "tensor 'w' has dtype 'F8_E4M3', which is not supported"),
        ({"w": entry(dtype="C64", shape=(3,))}, "tensor 'w' has dtype 'C64', which is not supported"),
        ({"w": entry(), "__metadata__": {"a": 1}}, "its __metadata__ is not a mapping of strings"),
        ({"w": entry(), "__metadata__": "a"}, "its __metadata__ is not a mapping of strings"),
        ({"w": entry(), "__metadata__": {"npmobilenet": "["}}, "its metadata is not valid JSON"),
        ({"w": entry(), "__metadata__": {"npmobilenet": "[" * 9**5}}, "its metadata is not valid JSON"),
        ({"w": entry(), "__metadata__": {"npmobilenet": "[NaN]"}}, "its metadata is not valid JSON"),
        ({"w": entry(), "__metadata__": {"npmobilenet": "[]"}}, "its metadata is not a JSON object"),
    ],
)
def test_safetensors_headers(refusal, header, text):
    assert text in refusal(safetensors(json.dumps(header), RAW))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (safetensors('{"w": }'), "its safetensors header is not valid JSON"),
        (safetensors('{"w": NaN}'), "its safetensors header is not valid JSON ('NaN is not JSON')"),
        (safetensors('{"w": ' + "9" * 5000 + "}"), "its safetensors header is not valid JSON"),
        (safetensors('{"w":' * 100_000), "its safetensors header is not valid JSON"),
        (safetensors('{"w": 1, "w": 2}'), "is not valid JSON ('a key occurs twice')"),
        (safetensors('{"w": 1}', length=2**39), f"its header should have {2**39} bytes, but 8 follow"),
        (safetensors("{}"), "holds no tensors"),
        (safetensors('{"\\ud800\\n": 1}'), r"tensor '\ud800\n' is not described by"),
    ],
)
def test_safetensors_files(refusal, content, text):
    assert text in refusal(content)
