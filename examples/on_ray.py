"""Classify the photographs of a folder on Ray, into Parquet.

pip install "npmobilenet[image]" "ray[data]"
python examples/on_ray.py FOLDER OUT
"""

import sys

import ray

import npmobilenet.ray


def classify(folder, workers=2, batch=64, predictor=npmobilenet.ray.Predictor, **options):
    """Have so many actors of one CPU each look at them; where one dies, Ray starts another."""
    files = ray.data.read_binary_files(folder, include_paths=True, num_cpus=0)  # which waits, for disk or network
    return files.map_batches(
        predictor,
        fn_constructor_kwargs={"model": "mobilenet_v2", **options},
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
        batch_size=batch,
    )


if __name__ == "__main__":
    classify(sys.argv[1]).write_parquet(sys.argv[2])
