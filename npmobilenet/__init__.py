"""MobileNet inference with nothing but NumPy and Numba."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npmobilenet.architectures import ARCHITECTURES
    from npmobilenet.checkpoints import export_weights
    from npmobilenet.errors import AssumptionWarning, FallbackWarning
    from npmobilenet.face_finder import Face, faces
    from npmobilenet.image import Preprocessing
    from npmobilenet.loading import load
    from npmobilenet.model import Model, Prediction, quantize
    from npmobilenet.onnx.writing import export_onnx
    from npmobilenet.streaming.batches import Batch, stream
    from npmobilenet.tasks.detection import Detection
    from npmobilenet.tasks.segmentation import Segmentation

__all__ = [
    "ARCHITECTURES",
    "AssumptionWarning",
    "Batch",
    "Detection",
    "Face",
    "FallbackWarning",
    "Model",
    "Prediction",
    "Preprocessing",
    "Segmentation",
    "__version__",
    "export_onnx",
    "export_weights",
    "faces",
    "load",
    "quantize",
    "stream",
]
__version__ = "0.1.0"

_here = Path(__file__).parent
if not (_here / "kernels").is_dir():
    # In a checkout `kernels/` and `bench/` stand beside this folder; installed, they are inside it.
    __path__.append(str(_here.parent))


def lazily(package: str, **places: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package that imports when it is asked: names from such modules, or modules."""

    def get(name: str) -> Any:
        module = f"{package}.{places.get(name, name)}"
        try:
            found = import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None
        return getattr(found, name) if name in places else found

    return get


# So that the command line starts, and can be interrupted, before NumPy is there.
__getattr__ = lazily(
    __name__,
    ARCHITECTURES="architectures",
    AssumptionWarning="errors",
    Batch="streaming.batches",
    Detection="tasks.detection",
    Face="face_finder",
    FallbackWarning="errors",
    Model="model",
    Prediction="model",
    Preprocessing="image",
    Segmentation="tasks.segmentation",
    export_onnx="onnx.writing",
    export_weights="checkpoints",
    faces="face_finder",
    load="loading",
    quantize="model",
    stream="streaming.batches",
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
