"""Classify the photographs of a folder in processes of Python's own, into CSV.

pip install "npmobilenet[image]"
python examples/in_processes.py FOLDER OUT.csv
"""

import csv
import sys
from pathlib import Path

from npmobilenet.distributed import Predictor, map_batches


def classify(folder, processes=2, batch=64, looks=Predictor("mobilenet_v2"), start="spawn"):
    """Yield rows; where a process dies, what it had begun is done again by others."""
    paths = sorted(map(str, Path(folder).glob("*.jpg")))
    batches = ({"path": paths[at : at + batch]} for at in range(0, len(paths), batch))
    for result in map_batches(looks, batches, processes=processes, start=start):
        yield from zip(result["path"], result["label"], result["probability"], result["error"], strict=True)


if __name__ == "__main__":
    with Path(sys.argv[2]).open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "probability", "error"), *classify(sys.argv[1])])
