"""Write what face-api.js and TensorFlow.js compute of two photographs.

    python -m tests.data.make_tensorflow_js FOLDER

FOLDER is made ready as ``make_tensorflow_js.mjs`` says, which node runs in it. Of large tensors some values are kept,
at equal distances; ``centernet`` and ``faceres`` read all of a photograph, as the selfie segmentation does.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import DATA, photo

SIZES = {"selfie": (256, 256), "faceres": (224, 224), "centernet": (512, 512)}
LARGEST = {"selfie": 255, "faceres": 1, "centernet": 1}  # by what pixels are divided
DIGITS = 6


def rounded(value):
    """Numbers with few digits, in whatever holds them."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def main(folder: Path) -> None:
    """Make the inputs, run node, keep what it found."""
    inputs = {}
    for name in ("astronaut.png", "three_women.jpg"):
        picture = Image.open(photo(name)).convert("RGB")
        (folder / f"{name}.raw").write_bytes(np.asarray(picture).tobytes())
        inputs[name] = {"size": picture.size, "inputs": SIZES}
        for network, (height, width) in SIZES.items():
            resized = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), np.float32)
            (folder / f"{name}.{network}.f32").write_bytes((resized / LARGEST[network]).astype(np.float32).tobytes())
    (folder / "inputs.json").write_text(json.dumps(inputs))
    script = Path(__file__).with_suffix(".mjs").resolve()
    subprocess.run(["node", str(script), str(folder)], check=True)
    found = rounded(json.loads((folder / "outputs.json").read_text()))
    found["made with"] = "face-api 1.7.15 and human-models 3.0.4 of @vladmandic on tfjs 4.22.0, cpu"
    (DATA / "reference" / "tensorflow_js.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
