"""Classify the photographs of a folder on Spark, into Parquet.

pip install "npmobilenet[image]" pyspark pandas pyarrow
python examples/on_spark.py FOLDER MODEL OUT
"""

import sys
from pathlib import Path

from pyspark import SparkFiles
from pyspark.sql import SparkSession

from npmobilenet.distributed import Predictor


def classify(spark, folder, model, predictor=Predictor, **options):
    """Send the model's file to each node once; where a task dies, Spark begins it again."""
    spark.sparkContext.addFile(model)
    file = spark.sparkContext.broadcast(Path(model).name)

    def looks(frames):
        return predictor(SparkFiles.get(file.value), **options).frames(frames)

    photographs = spark.read.format("binaryFile").load(f"{folder}/*.jpg").select("path", "content")
    return photographs.mapInPandas(looks, predictor(model, **options).schema("path string"))


if __name__ == "__main__":
    classify(SparkSession.builder.getOrCreate(), *sys.argv[1:3]).write.parquet(sys.argv[3])
