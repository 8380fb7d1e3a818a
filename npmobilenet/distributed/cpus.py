"""How many CPUs an engine gave this worker.

Engines run as many workers on a machine as it has CPUs, and each of these can see them all. What a worker was given the
engine knows alone; it is asked only where it is loaded, and so imported nowhere here.
"""

from __future__ import annotations

import multiprocessing
import os
import sys

from npmobilenet.machine import available_cpus

_granted: int | None = None  # what `grant` was told


def granted_cpus() -> int:
    """Return how many CPUs the engine gave this process, or the actor or task in it; at least 1.

    Ray's ``num_cpus``, the ``nthreads`` of Dask's worker, Spark's ``spark.task.cpus``. A child of `multiprocessing` has
    what ``OMP_NUM_THREADS`` says, which joblib sets, else 1: it has sisters, in number unknown. Any other process has
    all that it may use.
    """
    for ask in (_told, _ray, _dask, _spark, _child):
        cpus = ask()
        if cpus is not None:
            return min(max(1, int(cpus)), available_cpus())
    return available_cpus()


def grant(cpus: int) -> None:
    """Tell this process how many CPUs it has."""
    global _granted
    _granted = cpus


def _told() -> int | None:
    return _granted


def _ray() -> float | None:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        return None  # the program that asks for workers
    return context.get_assigned_resources().get("CPU", 0)  # an actor of none runs beside others that have one


def _dask() -> int | None:
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        return distributed.get_worker().state.nthreads
    except ValueError:  # not called by a worker
        return None


def _spark() -> int | None:
    pyspark = sys.modules.get("pyspark")
    context = None if pyspark is None else pyspark.TaskContext.get()
    return None if context is None else context.cpus()


def _child() -> int | None:
    """Of a process among sisters: what libraries with threads of their own are told, as joblib tells them."""
    if multiprocessing.parent_process() is None:
        return None
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() else 1
