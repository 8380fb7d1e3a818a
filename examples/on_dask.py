"""Classify the photographs of a folder on Dask, into Parquet.

pip install "npmobilenet[image]" "dask[dataframe,distributed]"
python examples/on_dask.py FOLDER OUT
"""

import sys
from pathlib import Path

import dask.dataframe
import pandas
from distributed import Client

import npmobilenet
from npmobilenet.distributed import Predictor


def classify(client, folder, batch=64, predictor=Predictor, **options):
    """Send the model to each worker once, and paths to whichever is free; where one dies, Dask starts another."""
    looks = predictor(npmobilenet.load("mobilenet_v2"), **options)
    paths = pandas.DataFrame({"path": sorted(map(str, Path(folder).glob("*.jpg")))})
    parts = dask.dataframe.from_pandas(paths, chunksize=batch)
    sent = client.scatter(looks, broadcast=True)
    return parts.map_partitions(lambda part, looks: looks(part), sent, meta=looks.meta(paths))


if __name__ == "__main__":
    with Client(n_workers=2, threads_per_worker=1) as client:
        classify(client, sys.argv[1]).to_parquet(sys.argv[2])
