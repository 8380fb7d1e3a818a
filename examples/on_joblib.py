"""Classify the photographs of a folder with joblib, into CSV.

pip install "npmobilenet[image]" joblib pandas && python examples/on_joblib.py FOLDER OUT.csv
"""

import sys
from contextlib import suppress
from pathlib import Path

import pandas
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from npmobilenet.distributed import Predictor


def classify(folder, workers=2, batch=64, looks=Predictor("mobilenet_v2")):
    """Look at batches of paths in processes, among which joblib shares the CPUs."""
    paths, done = sorted(map(str, Path(folder).glob("*.jpg"))), {}
    todo = {start: paths[start : start + batch] for start in range(0, len(paths), batch)}
    for _ in range(4):
        missing = [start for start in todo if start not in done]
        results = Parallel(workers, return_as="generator")(delayed(looks)({"path": todo[at]}) for at in missing)
        with suppress(TerminatedWorkerError):  # which leaves some that are missing
            done.update(zip(missing, map(pandas.DataFrame, results)))  # noqa: B905
    return pandas.concat([done[start] for start in todo])


if __name__ == "__main__":
    classify(sys.argv[1]).to_csv(sys.argv[2], index=False)
