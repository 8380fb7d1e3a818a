"""What the package must not do: import a framework, compile at import, ship files that lie."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npmobilenet
from npmobilenet import machine, weights
from npmobilenet.checkpoints import read_checkpoint
from npmobilenet.cli import main
from npmobilenet.errors import CheckpointError
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
    folders = ("npmobilenet", "kernels", "bench/study")
    return [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]


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


def test_without_a_cache_folder_downloads_are_not_there_and_cannot_be_made(monkeypatch, capsys):
    monkeypatch.setenv("NPMOBILENET_CACHE_DIR", "~nosuchuser/x")
    name = "mobilenet_v2_imagenet1k_v2"
    with pytest.raises(CheckpointError, match=f"not on this machine; run: npmobilenet weights download {name}"):
        npmobilenet.load(name)
    assert main(["weights"]) == 0
    assert "not downloaded" in capsys.readouterr().out
    assert main(["weights", "download", name]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "npmobilenet: no home folder is known for the user 'nosuchuser'; "
        "set NPMOBILENET_CACHE_DIR to a folder that can be written"
    )


def test_shipped_weights_that_are_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "HERE", tmp_path)
    with pytest.raises(CheckpointError, match="'mobilenet_v1' are not on this machine; reinstall npmobilenet"):
        npmobilenet.load("mobilenet_v1")


def test_shipped_files_together_fit_a_wheel():
    assert sum(path.stat().st_size for path in (ROOT / "npmobilenet/weights").glob("*.safetensors")) < 55e6


def test_class_names():
    assert imagenet_classes()[967] == "espresso" and len(set(imagenet_classes())) >= 998
    assert class_names(2, ["a", "b"]) == ("a", "b")
    assert class_names(1001)[1] == "tench"


# CPUs ------------------------------------------------------------------------------------------------------------

V2, V1 = "cgroup2 cgroup2 rw", "cgroup cgroup rw,cpu,cpuacct"


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("cpu_", "cpu.")).write_text(text)


def quota(tmp_path: Path, groups: str, *mounts: tuple[str, str, str]) -> int | None:
    """What is found with such files; mounts are the root in the file system, the folder and what is mounted there."""
    lines = ["22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"]
    for number, (root, folder, kind) in enumerate(mounts):
        place = str(tmp_path / folder).replace(" ", r"\040")
        lines.append(f"{30 + number} 22 0:{number} {root} {place} rw,nosuid shared:9 master:2 - {kind}")
    write(tmp_path / "self", cgroup=groups, mountinfo="\n".join(lines) + "\n")
    return _cgroup_quota(tmp_path / "self")


def test_available_cpus_respects_quotas(monkeypatch):
    assert 1 <= available_cpus() <= 4096
    monkeypatch.setattr(machine, "_cgroup_quota", lambda: 1)
    assert available_cpus() == 1
    monkeypatch.setattr(machine, "_cgroup_quota", lambda: 10**6)
    assert available_cpus() <= 4096
    monkeypatch.undo()
    assert _cgroup_quota(Path("nothing")) is None


@pytest.mark.parametrize("text", ["max 100000\n", "", "-1 100000", "100000 0", "nonsense 1"])
def test_a_group_without_a_quota(tmp_path, text):
    write(tmp_path / "fs", cpu_max=text)
    assert quota(tmp_path, "0::/\n", ("/", "fs", V2)) is None


@pytest.mark.parametrize(
    ("own", "above", "top", "expected"),
    [
        ("max 100000", "max 100000", "max 100000", None),
        ("200000 100000", "max 100000", "max 100000", 2),
        ("max 100000", "300000 100000", "max 100000", 3),  # systemd: CPUQuota= of a slice around the service
        ("800000 100000", "150000 100000", "400000 100000", 1),  # the smallest counts, rounded down
        ("50000 100000", "max 100000", None, 1),  # at least one
    ],
)
def test_the_smallest_quota_of_all_groups_around_the_process(tmp_path, own, above, top, expected):
    """Version 2; beside a hierarchy of version 1 without CPUs, and mounted at a place with a space in its name."""
    write(tmp_path / "some where/a.slice/b.service", cpu_max=own)
    write(tmp_path / "some where/a.slice", cpu_max=above)
    if top:
        write(tmp_path / "some where", cpu_max=top)
    write(tmp_path, cpu_max="100000 100000")  # above the mount: no group
    groups = "4:memory:/elsewhere\n1:name=systemd:/x\n0::/a.slice/b.service\n"
    mounts = ("/", "memory", "cgroup cgroup rw,memory"), ("/", "some where", V2)
    assert quota(tmp_path, groups, *mounts) == expected


def test_quotas_of_version_1(tmp_path):
    """Slurm's groups, in a hierarchy that has a name of its own; one without a quota says -1."""
    job = tmp_path / "cpu,cpuacct/slurm/uid_7/job_9"
    write(job, cpu_cfs_quota_us="-1\n", cpu_cfs_period_us="100000\n")
    groups = "3:cpuset:/other\n2:cpu,cpuacct:/slurm/uid_7/job_9\n0::/\n"
    mounts = ("/", "unified", V2), ("/", "cpuset", "cgroup cgroup rw,cpuset"), ("/", "cpu,cpuacct", V1)
    assert quota(tmp_path, groups, *mounts) is None
    write(job.parent, cpu_cfs_quota_us="400000\n", cpu_cfs_period_us="100000\n")
    assert quota(tmp_path, groups, *mounts) == 4
    write(tmp_path / "unified", cpu_max="300000 100000")  # both versions at once: the smaller
    assert quota(tmp_path, groups, *mounts) == 3


@pytest.mark.parametrize(
    ("path", "root", "below"),
    [
        ("/docker/abc", "/docker/abc", ""),  # the host's names, of which the container's group is mounted
        ("/docker/abc/inner", "/docker/abc", "inner"),
        ("/", "/", ""),  # a namespace of groups
        ("/../xyz", "/", ""),  # a process that came from outside of the namespace
        ("/docker/abc", "/docker/other", ""),
    ],
)
def test_groups_in_a_container(tmp_path, path, root, below):
    write(tmp_path / "fs" / below, cpu_max="200000 100000")
    assert quota(tmp_path, f"0::{path}\n", (root, "fs", V2)) == 2


def test_type_checkers_are_told_of_the_annotations():
    assert (Path(npmobilenet.__file__).parent / "py.typed").is_file()
    assert '"npmobilenet": ["py.typed"]' in (ROOT / "setup.py").read_text(encoding="utf-8")


def test_the_helper_threads_have_two_names():
    """What replaces `npmobilenet.threads.ask`, to look at it or to interrupt it, changes what the engine calls."""
    from npmobilenet import threads
    from npmobilenet.kernels.walk import threads as theirs

    assert threads is theirs


def test_the_command_line_starts_without_what_takes_a_moment():
    """NumPy, and the benchmarks and studies: each command loads what it needs."""
    code = (
        "import sys; from npmobilenet.cli import parser; parser()\n"
        "print([name for name in sys.modules if name == 'numpy' or name.startswith('npmobilenet.bench')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"
