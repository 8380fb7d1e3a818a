"""Packaging of npmobilenet.

``kernels/`` and ``bench/`` are folders of their own at the top level and install as ``npmobilenet.kernels``
and ``npmobilenet.bench`` (a bare top-level package ``kernels`` would collide with one on PyPI).
"""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
FOLDERS = {"npmobilenet": "npmobilenet", "npmobilenet.kernels": "kernels", "npmobilenet.bench": "bench"}


def packages() -> dict[str, str]:
    """Map every package to its folder (setuptools does not search mapped folders by itself)."""
    found = {}
    for name, folder in FOLDERS.items():
        for init in sorted((HERE / folder).rglob("__init__.py")):
            below = init.parent.relative_to(HERE / folder)
            found[".".join([name, *below.parts])] = (Path(folder) / below).as_posix()
    return found


EXTRAS = {
    "image": ["pillow>=9.1", "tqdm>=4.60"],
    "serve": ["starlette>=0.37", "uvicorn>=0.29", "pillow>=9.1"],
    "parquet": ["pyarrow>=14"],
    "study": ["matplotlib>=3.7", "pillow>=9.1"],
    "test": [
        *("pytest>=7.4", "pytest-benchmark>=4.0", "hypothesis>=6.80"),
        *("pillow>=9.1", "tqdm>=4.60", "matplotlib>=3.7", "pyarrow>=14"),
    ],
    "bench": ["pytest>=7.4", "pytest-benchmark>=4.0"],
    "report": ["matplotlib>=3.7"],
    "cuda": ["numba-cuda[cu12]>=0.20"],  # with CUDA's compiler; a driver of that version or a later one is needed
}
# What executes the compiled CUDA kernels without a GPU: the compiler (170 MB), and less than what "cuda" installs.
EXTRAS["test-cuda"] = ["numba-cuda>=0.22", "nvidia-nvvm==13.*", "nvidia-cuda-nvrtc==13.*", "cuda-bindings==13.*"]
# Not in "all": the CUDA compiler is large, and of use only where there is a device.
EXTRAS["all"] = sorted({requirement for name, extra in EXTRAS.items() if "cuda" not in name for requirement in extra})
EXTRAS["test-onnx"] = ["onnx>=1.23", "onnxruntime>=1.20"]  # the one for its tests, both for exported files
# What the tests of engines and of the server need beside "test"; Spark a Java besides, and the page's a Chromium.
EXTRAS["test-engines"] = [
    *EXTRAS["serve"],
    *("ray[data,serve]>=2.30", "dask[dataframe,distributed]>=2024.6", "joblib>=1.4", "pyspark>=3.5"),
    *("pandas>=2.0", "pyarrow>=14", "httpx>=0.27", "playwright>=1.40"),
]
# What `npmobilenet.bench.peers` compares with; frameworks, so not part of "all".
EXTRAS["peers"] = ["onnxruntime>=1.17", "openvino>=2024.0", "ai-edge-litert>=1.2", "torch>=2.1"]
EXTRAS["peers-int8"] = [*EXTRAS["peers"], "onnx>=1.15", "nncf>=2.14"]  # what quantises for onnxruntime and OpenVINO

setup(
    name="npmobilenet",
    version=re.search(r'__version__ = "(.+)"', (HERE / "npmobilenet/__init__.py").read_text())[1],
    description="MobileNet inference with nothing but NumPy and Numba: no deep-learning framework installed",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE", "npmobilenet/weights/LICENSES.md"],
    python_requires=">=3.10",  # what is too new Numba knows itself
    install_requires=["numpy", "numba>=0.63"],
    extras_require=EXTRAS,
    packages=sorted(packages()),
    package_dir=packages(),
    package_data={
        "npmobilenet": ["py.typed"],
        "npmobilenet.kernels": ["shipped/*", "shipped/*/*"],
        "npmobilenet.serving": ["*.html"],
        "npmobilenet.weights": ["*.safetensors", "*.plans", "*.md", "*.txt"],
        "npmobilenet.bench": ["*.css"],
    },
    entry_points={"console_scripts": ["npmobilenet=npmobilenet.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
