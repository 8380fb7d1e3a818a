"""Write torch_operations.npz: PyTorch's answers to the cases of tests/kernels/cases.py.

Made with PyTorch 2.13.0 (CPU, float64) and NumPy 2.4.6; the seed of each case is the CRC-32 of its text. Run
from the top of the repository: ``python -m tests.data.make_torch_operations``. The inputs are stored beside
the answers, so that the tests depend on no random number generator.
"""

from pathlib import Path

import numpy as np
import torch

from tests.kernels.cases import TORCH_CASES, torch_result

stored = {"versions": np.array(f"torch {torch.__version__}, numpy {np.__version__}")}
for case in TORCH_CASES:
    arrays = case.arrays()
    for name, array in arrays.items():
        for i, part in enumerate(array if isinstance(array, list) else [] if array is None else [array]):
            stored[f"{case}/{name}{i if isinstance(array, list) else ''}"] = part
    stored[f"{case}/result"] = torch_result(case, arrays)
path = Path(__file__).parent / "torch_operations.npz"
np.savez_compressed(path, **stored)
print(f"{path}: {len(TORCH_CASES)} cases, {path.stat().st_size / 1000:.0f} kB, {stored['versions']}")
