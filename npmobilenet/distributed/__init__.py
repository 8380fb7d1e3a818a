"""Photographs by the million, on whichever engine there is already: Ray, Dask, Spark, joblib, processes of Python's.

``predictor``
    :class:`Predictor`: batches of photographs to rows of results; small when it is pickled, loads its network once in
    each process and computes on the CPUs that the engine gave this one.
``cpus``
    How many these are.
``processes``
    :func:`map_batches`: processes of Python's own, which die without a photograph being lost.
"""

from npmobilenet.distributed.cpus import granted_cpus
from npmobilenet.distributed.predictor import Predictor
from npmobilenet.distributed.processes import map_batches

__all__ = ["Predictor", "granted_cpus", "map_batches"]
