"""What the package must not do: import a framework, compile at import, ship files that lie."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npmobilenet
from npmobilenet.checkpoints import read_checkpoint
from npmobilenet.labels import class_names, imagenet_classes
from npmobilenet.machine import _cgroup_quota, available_cpus
from npmobilenet.weights import CATALOGUE

ROOT = Path(__file__).parents[1]
FRAMEWORKS = {
    "torch",
    "torchvision",
    "timm",
    "onnx",
    "onnxruntime",
    "tensorflow",
    "jax",
    "openvino",
    "safetensors",
}


def sources():
    return [file for folder in ("npmobilenet", "kernels") for file in sorted((ROOT / folder).rglob("*.py"))]


def imported(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_framework_is_imported(file):
    assert not FRAMEWORKS & {name.split(".")[0] for name in imported(file)}


def test_cuda_is_imported_in_one_module():
    files = [
        file.name
        for file in sources()
        if "cuda" in file.read_text(encoding="utf-8") and "from numba import cuda" in file.read_text(encoding="utf-8")
    ]
    assert files == ["device.py"]


def test_every_njit_names_its_flags():
    """Kernels are compiled by `kernels.jit`, where the flags stand; nothing else calls Numba's decorators."""
    decorator = re.compile(r"\b(numba|nb)\.(njit|jit|vectorize|guvectorize)\b|from numba import .*\b(n?jit)\b")
    offenders = [file.name for file in sources() if decorator.search(file.read_text(encoding="utf-8"))]
    assert offenders == ["jit.py"]


def test_import_loads_no_compiler():
    compilers = {"numba", "llvmlite", "PIL"}
    code = f"import sys, npmobilenet; print(sorted({{m.split('.')[0] for m in sys.modules}} & {compilers}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_public_names():
    assert {"load", "Model", "Prediction", "export_weights", "ARCHITECTURES"} <= set(npmobilenet.__all__)
    assert all(hasattr(npmobilenet, name) for name in npmobilenet.__all__)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v1"])
def test_shipped_files_are_what_the_catalogue_says(name):
    entry = CATALOGUE[name]
    assert entry.present and entry.verify()
    checkpoint = read_checkpoint(entry.path)
    assert all(array.dtype == np.float32 for array in checkpoint.tensors.values())
    info = entry.info()
    licences = (ROOT / "npmobilenet/weights/LICENSES.md").read_text(encoding="utf-8")
    assert f"## {entry.file}\n" in licences and info.licence.rpartition(", ")[2] in licences
    assert len(info.classes) == {"mobilenet_v2": 1000, "mobilenet_v1": 1001}[name]


def test_shipped_files_together_fit_a_wheel():
    assert sum(path.stat().st_size for path in (ROOT / "npmobilenet/weights").glob("*.safetensors")) < 35e6


def test_class_names():
    assert imagenet_classes()[967] == "espresso" and len(set(imagenet_classes())) >= 998
    assert class_names(2, ["a", "b"]) == ("a", "b")
    assert class_names(1001)[1] == "tench"


def test_available_cpus_respects_quotas(tmp_path):
    assert 1 <= available_cpus() <= 4096
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert _cgroup_quota(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert _cgroup_quota(tmp_path) is None
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("400000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert _cgroup_quota(tmp_path) == 4
    assert _cgroup_quota(tmp_path / "nothing") is None


def test_type_checkers_are_told_of_the_annotations():
    assert (Path(npmobilenet.__file__).parent / "py.typed").is_file()
    assert '"npmobilenet": ["py.typed"]' in (ROOT / "setup.py").read_text(encoding="utf-8")
