"""MobileNet inference with nothing but NumPy and Numba."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npmobilenet.architectures import ARCHITECTURES
    from npmobilenet.checkpoints import export_weights
    from npmobilenet.errors import AssumptionWarning, FallbackWarning
    from npmobilenet.image import Preprocessing
    from npmobilenet.model import Model, Prediction, load, quantize
    from npmobilenet.onnx.writing import export_onnx

__all__ = [
    "ARCHITECTURES",
    "AssumptionWarning",
    "FallbackWarning",
    "Model",
    "Prediction",
    "Preprocessing",
    "__version__",
    "export_onnx",
    "export_weights",
    "load",
    "quantize",
]
__version__ = "0.1.0"

_here = Path(__file__).parent
if not (_here / "kernels").is_dir():
    # In a checkout `kernels/` and `bench/` stand beside this folder; installed, they are inside it.
    __path__.append(str(_here.parent))

# Imported when first asked for, so that the command line starts, and can be interrupted, before NumPy is there.
_MODULES = {
    "ARCHITECTURES": "architectures",
    "AssumptionWarning": "errors",
    "FallbackWarning": "errors",
    "Model": "model",
    "Prediction": "model",
    "Preprocessing": "image",
    "export_onnx": "onnx.writing",
    "export_weights": "checkpoints",
    "load": "model",
    "quantize": "model",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
