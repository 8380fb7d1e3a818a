"""What a pack has for people: how it is run, how large it is, and how it becomes a function in a cloud."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.text import dimensions, printable

if TYPE_CHECKING:
    from npmobilenet.model import Model
    from npmobilenet.packing.folder import Pack

PREDICT = """import sys
from npmobilenet.packed import load
print({result})
"""
RESULTS = {
    "classify": "load().classify(sys.argv[1])[0].label",
    "detect": '*load().detect(sys.argv[1]), sep="\\n"',
    "faces": '*load().find(sys.argv[1]), sep="\\n"',
    "segment": "load().segment(sys.argv[1]).share",
}

REQUIREMENTS = """numpy>=1.22
pillow>=9.1  # decodes image files: not needed for arrays
"""

FUNCTION = '''"""Answers photographs with what the network makes of them: over HTTP, or as the handler of a function."""

import base64
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from npmobilenet.packed import load

MOST_BYTES = 32 << 20  # of a photograph
model = load()  # once, when the function starts


def answer(photograph):
    """The bytes of an image file, as JSON."""
    found = model.{method}(photograph)
    return json.dumps({shown})


def handler(event, context):
    """For clouds that call a handler with an event, whose body is the photograph."""
    body = event["body"]
    return {{"statusCode": 200, "body": answer(base64.b64decode(body) if event.get("isBase64Encoded") else body)}}


class Requests(BaseHTTPRequestHandler):
    """For clouds that send HTTP: POST a photograph."""

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        try:
            if not 0 < length <= MOST_BYTES:
                raise ValueError(f"a photograph of 1 to {{MOST_BYTES}} bytes is expected, got {{length}}")
            status, text = 200, answer(self.rfile.read(length))
        except ValueError as error:  # what is wrong with the photograph
            status, text = 400, json.dumps({{"error": str(error)}})
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(text.encode())


if __name__ == "__main__":
    HTTPServer(("", int(os.environ.get("PORT", 8080))), Requests).serve_forever()
'''
METHODS = {"classify": "classify", "detect": "detect", "faces": "find", "segment": "segment"}
SHOWN = {
    "classify": '{"predictions": [one._asdict() for one in found]}',
    "detect": '{"detections": [one._asdict() for one in found]}',
    "faces": '{"faces": [one._asdict() for one in found]}',
    "segment": '{"labels": list(found.labels), "share": found.share}',
}

# What no network reads of NumPy, as it is installed, and the command that removes it there.
UNREAD = ("f2py", "distutils", "_core/include", "_core/lib", "random/lib")
SLIM = f"rm -rf {' '.join(UNREAD)} && find . -depth -name tests -exec rm -r {{}} + && find . -name '*.pyi' -delete"

DOCKERFILE = """# A function in a cloud: answers photographs, sent by POST, with JSON.
FROM python:{python}-slim AS packages
COPY requirements.txt .
RUN pip install --target /packages -r requirements.txt \\
 && cd /packages/numpy && {slim}

FROM python:{python}-slim
COPY --from=packages /packages /packages
COPY . /function
# Bytecode of this very Python: nothing is compiled when the function starts, and nothing written.
RUN python -m compileall -q --invalidation-mode unchecked-hash /packages /function
ENV PYTHONPATH=/packages PYTHONDONTWRITEBYTECODE=1 OPENBLAS_NUM_THREADS=1
USER nobody
CMD ["python", "/function/function.py"]
"""

README = """# {title}

`npmobilenet pack` wrote this: weights as kernels read them, the machine code that they need, and the modules that run
it. Beside it there must be Python 3.10 or later on Linux, and NumPy. Pillow decodes image files; arrays need none.

```sh
pip install numpy pillow
python {name} photo.jpg    # what `npmobilenet {task}` prints; --help says what else there is
python {name} array.npy    # a uint8 array (height, width, 3), RGB: without Pillow
```

```python
import sys
sys.path.insert(0, "{name}")
from npmobilenet.packed import load

model = load()
model.{method}("photo.jpg")    # or the bytes of such a file, or a uint8 array
```
{files}
| | MB |
| --- | --- |
{sizes}

Nothing reads NumPy's tests, headers and types. Without them, in a folder that goes wherever the pack goes:

```sh
pip install --target packages numpy pillow
(cd packages/numpy && {slim})
PYTHONPATH=packages python {name} photo.jpg
```

28 MB more of NumPy, as pip installs it for x86-64, are OpenBLAS, which nothing here calls, but NumPy is linked to it.

The machine code is for {levels}. Any other machine says so in a line, and is served by a pack that was
made with `--targets all`, or with the names of its levels.
"""

FILES = """
`predict.py` is the shortest program. `function.py` and `Dockerfile` make a function in a cloud of it:

```sh
docker build -t {image} {name} && docker run -p 8080:8080 {image}
curl --data-binary @photo.jpg localhost:8080
```
"""


def files(made: Pack, name: str, archive: bool) -> dict[str, bytes]:
    """Return the texts by the names of their files; an archive has no programs beside the one that it is."""
    found = {"README.md": _readme(made, name, archive), "requirements.txt": REQUIREMENTS}
    if not archive:
        method, shown = METHODS[made.task], SHOWN[made.task]
        found |= {
            "predict.py": PREDICT.format(result=RESULTS[made.task]),
            "function.py": FUNCTION.format(method=method, shown=shown),
            "Dockerfile": DOCKERFILE.format(python="{}.{}".format(*sys.version_info), slim=SLIM),
        }
    return {name: text.encode() for name, text in found.items()}


def _readme(made: Pack, name: str, archive: bool) -> str:
    networks = [f"{model.architecture}, {dimensions(_size(model))}, {model.dtype}" for model in made.models]
    code = sum(len(content) for file, content in made.files.items() if file.endswith(".so"))
    modules = made.size - made.blob.size - code
    parts = {"weights and plans": made.blob.size, f"machine code for {', '.join(made.levels)}": code}
    parts |= {"modules": modules, "all": made.size, **with_numpy(made)}
    image = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name.lower()).strip("-")
    return README.format(
        title=printable(" and ".join(networks)),
        name=name,
        task=made.task,
        method=METHODS[made.task],
        files="" if archive else FILES.format(name=name, image=image or "network"),
        sizes="\n".join(f"| {what} | {size / 1e6:.1f} |" for what, size in parts.items()),
        levels=", ".join(made.levels),
        slim=SLIM,
    )


def with_numpy(made: Pack) -> dict[str, int]:
    """Return what a pack and NumPy, with the libraries that came with it, are together: bytes, by what is said."""
    here = Path(np.__file__).parent
    files = {file: file.stat().st_size for folder in (here, here.with_name("numpy.libs")) for file in _files(folder)}
    unread = sum(size for file, size in files.items() if here in file.parents and _is_unread(file.relative_to(here)))
    whole = made.size + sum(files.values())
    return {
        f"with NumPy {np.__version__} as it is installed here": whole,
        "with NumPy without its tests, headers and types": whole - unread,
    }


def _files(folder: Path) -> Iterator[Path]:
    """All files of a folder."""
    return (file for file in folder.rglob("*") if file.is_file())


def _is_unread(file: Path) -> bool:
    """Whether `SLIM` removes it."""
    return file.as_posix().startswith(UNREAD) or "tests" in file.parts or file.suffix == ".pyi"


def _size(model: Model) -> tuple[int, int]:
    return model.size or model.preprocessing.crop
