"""The tests of the package ``onnx``, on this package, as a table between the markers of docs/onnx.md.

python -m tests.onnx_suite docs/onnx.md

Needs ``pip install onnx``. Node tests are those whose operators are known here; the others are whole folders of
models. What is not right is listed with what was said.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from npmobilenet.backends import DEFAULT
from npmobilenet.bench import markers
from npmobilenet.onnx.conversion import CONVERTERS
from npmobilenet.onnx.file import Node, read_model
from npmobilenet.onnx.operator import OPERATORS
from npmobilenet.onnx.parts import Session, check
from npmobilenet.text import printable

REGION, OPERATOR_REGION = "tests/onnx_suite.py", "tests/onnx_suite.py, operators"
FOLDERS = ("pytorch-operator", "pytorch-converted", "light")
HELD_IN = {"int4": np.int8, "int2": np.int8, "uint4": np.uint8, "uint2": np.uint8}
RTOL, ATOL, ATOL_OF_HALF = 1e-3, 1e-7, 1e-3  # onnx's own, and what rounding to 16 bits may do to sums


@dataclass
class Case:
    """A model with inputs and what must come out."""

    group: str
    name: str
    path: Path
    data: list[tuple[list[np.ndarray], list[np.ndarray]]]
    rtol: float = RTOL
    atol: float = ATOL


@dataclass
class Results:
    """Of a group of cases."""

    right: int = 0
    on_kernels: int = 0
    wrong: dict[str, str] = field(default_factory=dict)


def node_cases(folder: Path) -> Iterator[Case]:
    """The tests of single operators; models are written to a folder."""
    from onnx.backend.test.case.node import collect_testcases

    for number, case in enumerate(collect_testcases(None)):
        if case.model is not None and {node.op_type for node in case.model.graph.node} <= OPERATORS.keys():
            path = folder / f"{number}.onnx"
            path.write_bytes(case.model.SerializeToString())
            data = [([_held(x) for x in inputs], [_held(y) for y in outputs]) for inputs, outputs in case.data_sets]
            yield Case("nodes", case.name, path, data, max(case.rtol, RTOL), max(case.atol, ATOL))


def folder_cases(group: str) -> Iterator[Case]:
    """The tests in a folder: a model and its data each; of the light ones their results for numbers that go up."""
    import onnx

    root = Path(onnx.__file__).parent / "backend" / "test" / "data" / group
    for path in sorted(root.glob("*.onnx")):
        (shape,) = (port.shape for port in read_model(path).inputs)
        x = np.arange(np.prod(shape), dtype=np.float64).reshape(shape) / np.prod(shape)
        expected = _tensor(path.with_name(f"{path.stem}_output_0.pb"))
        yield Case(group, path.stem, path, [([x.astype(np.float32)], [expected])], atol=1e-6)
    for path in sorted(root.glob("*/model.onnx")):
        sets = sorted(path.parent.glob("test_data_set_*"))
        data = [tuple([_tensor(file) for file in _numbered(one, kind)] for kind in ("input", "output")) for one in sets]
        yield Case(group, path.parent.name, path, data)


def _numbered(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.rpartition("_")[2]))


def _tensor(path: Path) -> np.ndarray | None:
    import onnx

    try:
        return _held(onnx.numpy_helper.to_array(onnx.load_tensor(path)))
    except Exception:  # no tensor: a sequence
        return None


def _held(value: object) -> np.ndarray | None:
    """As this package holds types that NumPy does not have."""
    import onnx

    if isinstance(value, onnx.TensorProto):
        value = onnx.numpy_helper.to_array(value)
    if not isinstance(value, (np.ndarray, np.generic)):
        return None
    narrow = value.dtype.name.startswith(("bfloat", "float8", "float4"))
    return np.asarray(value).astype(np.float32 if narrow else HELD_IN.get(value.dtype.name, value.dtype))


def run(case: Case, backend: str = DEFAULT) -> bool:
    """Compute a case, and return whether the fast kernels had a part in it.

    Raises
    ------
    ValueError, AssertionError
        If it is refused, or not right.
    """
    graph = read_model(case.path)
    check(graph)
    session = Session(graph, backend)
    fast = False
    for inputs, outputs in case.data:
        arrays = dict(zip([port.name for port in graph.inputs], inputs, strict=True))
        found = session.run(arrays)
        steps = session.sized({name: array.shape for name, array in arrays.items()}).steps
        fast |= any(not isinstance(step, Node) for step in steps)
        for port, expected in zip(graph.outputs, outputs, strict=True):
            result = found[port.name]
            assert (result.dtype, result.shape) == (expected.dtype, expected.shape), f"{result.dtype} {result.shape}"
            atol = max(case.atol, ATOL_OF_HALF if expected.dtype == np.float16 else 0)
            np.testing.assert_allclose(result, expected, case.rtol, atol)
    return fast


def results() -> dict[str, Results]:
    """Run all cases."""
    found: dict[str, Results] = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [*node_cases(Path(folder)), *(case for group in FOLDERS for case in folder_cases(group))]
        for case in cases:
            of_group = found.setdefault(case.group, Results())
            try:
                of_group.on_kernels += run(case)
                of_group.right += 1
            except (ValueError, AssertionError) as error:
                reason = " ".join(str(error).split()).replace(str(case.path), "it")
                of_group.wrong[case.name] = printable(reason.replace("Not equal to tolerance", "differs,"), 110)
    return found


def table(found: dict[str, Results]) -> Iterator[str]:
    """Yield the lines of a table, and of the list of what is not right."""
    import onnx

    yield f"onnx {onnx.__version__}, operators of version {onnx.defs.onnx_opset_version()}"
    yield ""
    yield "| tests | right | of | on the fast kernels |"
    yield "| --- | --- | --- | --- |"
    for group, one in found.items():
        yield f"| {group} | {one.right} | {one.right + len(one.wrong)} | {one.on_kernels} |"
    yield ""
    reasons = Counter(f"{group}: {reason}" for group, one in found.items() for reason in one.wrong.values())
    names: dict[str, list[str]] = {}
    for group, one in found.items():
        for name, reason in one.wrong.items():
            names.setdefault(f"{group}: {reason}", []).append(name.removeprefix("test_"))
    for reason in reasons:
        group, _, said = reason.partition(": ")
        yield f"- {group}, {', '.join(f'`{name}`' for name in names[reason])}: {said}"


def operators() -> Iterator[str]:
    """Yield which operators there are, and which of them the fast kernels can compute."""
    fast = sorted(CONVERTERS.keys() & OPERATORS.keys())
    yield f"On the fast kernels where tensors are images and weights constants ({len(fast)}): {', '.join(fast)}."
    yield ""
    rest = sorted(OPERATORS.keys() - CONVERTERS.keys())
    yield f"In NumPy ({len(rest)}): {', '.join(rest)}."


def main() -> None:
    """Run everything and write the lists."""
    document = Path(sys.argv[1])
    markers.replace(document, REGION, table(results()))
    markers.replace(document, OPERATOR_REGION, operators())


if __name__ == "__main__":
    main()
