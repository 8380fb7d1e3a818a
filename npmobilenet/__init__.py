"""MobileNet inference with nothing but NumPy and Numba."""

from pathlib import Path

__version__ = "0.1.0"

_here = Path(__file__).parent
if not (_here / "kernels").is_dir():
    # In a checkout `kernels/` and `bench/` stand beside this folder; installed, they are inside it.
    __path__.append(str(_here.parent))

from npmobilenet.architectures import ARCHITECTURES  # noqa: E402
from npmobilenet.checkpoints import export_weights  # noqa: E402
from npmobilenet.errors import AssumptionWarning  # noqa: E402
from npmobilenet.image import Preprocessing  # noqa: E402
from npmobilenet.model import Model, Prediction, load  # noqa: E402

__all__ = [
    "ARCHITECTURES",
    "AssumptionWarning",
    "Model",
    "Prediction",
    "Preprocessing",
    "__version__",
    "export_weights",
    "load",
]
