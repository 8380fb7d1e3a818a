"""Threads that prepare and compute: batches, bounds, and no more threads than were asked for."""

import threading
import time
from concurrent.futures import CancelledError
from itertools import chain

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.pipelines import Classify, Detect, Features, Segment
from npmobilenet.workers import BusyError, Workers
from tests.conftest import compiled_only, no_kernels


def results(workers, pipeline, sources):
    """All of them, in order."""
    found = list(workers.map(pipeline, sources))
    assert [source for source, _ in found] == list(sources)
    return [result for _, result in found]


class Counted:
    """A pipeline that squares numbers, and knows how many threads are in it."""

    task = "squares"

    def __init__(self, prepare=0.0, compute=0.0):
        self.seconds = {"prepare": prepare, "compute": compute}
        self.lock, self.active, self.most = threading.Lock(), 0, 0
        self.batches, self.threads = [], []

    def enter(self, number, what):
        with self.lock:
            self.active += number
            self.most = max(self.most, self.active)
        time.sleep(self.seconds[what])
        with self.lock:
            self.active -= number

    def prepare(self, source):
        self.enter(1, "prepare")
        if source == 13:
            raise ValueError("13 is no photograph")
        return source

    def compute(self, prepared, threads):
        self.batches.append(list(prepared))
        self.threads.append(threads)
        self.enter(threads, "compute")
        if 17 in prepared:
            raise MemoryError("17")
        return [ValueError("19 has no result") if one == 19 else one * one for one in prepared]


@no_kernels
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_batches_without_too_many_threads(threads):
    """Each has its own result or exception; CPUs that are lent are counted too."""
    pipeline = Counted(0.001, 0.002)
    workers = Workers(threads, batch=4)
    found = results(workers, pipeline, [at for at in range(60) if at != 17])
    expected = [at * at for at in range(60) if at not in (13, 17, 19)]
    assert [one for one in found if isinstance(one, int)] == expected
    assert [str(one) for one in found if not isinstance(one, int)] == ["13 is no photograph", "19 has no result"]
    assert pipeline.most <= threads and max(map(len, pipeline.batches)) <= 4
    assert len(pipeline.batches) < 59  # so there were batches
    (failed,) = results(workers, pipeline, [17])
    assert isinstance(failed, MemoryError) and results(workers, pipeline, [2]) == [4]
    workers.close()
    assert pipeline.active == 0 and not any(thread.is_alive() for thread in workers._threads)


@no_kernels
def test_alone_a_photograph_is_computed_by_all_threads():
    workers, pipeline = Workers(3), Counted()
    for at in range(3):
        assert results(workers, pipeline, [at]) == [at * at]
        while workers._idle < 3:  # all wait again
            time.sleep(0.001)
    assert pipeline.threads[1:] == [3, 3] and pipeline.batches == [[0], [1], [2]]
    workers.close()


@no_kernels
def test_nobody_waits_longer_than_the_bound():
    """Where preparing takes long, or computing, batches are short."""
    slow = Counted(prepare=0.01)
    workers = Workers(1, batch=100, latency=0.04)
    results(workers, slow, range(12))
    assert max(map(len, slow.batches)) <= 6 and len(slow.batches) > 1
    slow = Counted(compute=0.03)
    workers = Workers(1, batch=100, latency=0.04)
    results(workers, slow, [0])
    results(workers, slow, range(6))
    assert set(map(len, slow.batches)) == {1}
    workers.close()


@no_kernels
def test_kinds_are_not_mixed():
    one, other = Counted(0.001), Counted(0.001)
    workers = Workers(1, batch=8)
    futures = [workers.submit((one, other)[at % 2], at) for at in range(12)]
    assert [future.result() for future in futures] == [at * at for at in range(12)]
    assert {at % 2 for batch in one.batches for at in batch} == {0}
    assert {at % 2 for batch in other.batches for at in batch} == {1}
    workers.close()


@no_kernels
def test_what_is_too_much_is_refused_and_what_is_cancelled_costs_nothing():
    pipeline, lengths = Counted(0.02), []
    workers = Workers(1, most=3, watch=lengths.append)
    futures = [workers.submit(pipeline, 0)]
    while workers.waiting:  # until it is begun
        time.sleep(0.001)
    futures += [workers.submit(pipeline, at) for at in (1, 2, 3)]
    with pytest.raises(BusyError, match="3 photographs waiting already: try again later"):
        workers.submit(pipeline, 4)
    assert futures[2].cancel()
    workers.close()
    with pytest.raises(BusyError, match="closing"):
        workers.submit(pipeline, 5)
    assert [futures[at].result() for at in (0, 1, 3)] == [0, 1, 9]
    with pytest.raises(CancelledError):
        futures[2].result()
    assert sorted(chain.from_iterable(pipeline.batches)) == [0, 1, 3] and sum(lengths) == 3
    assert workers.waiting == 0


@no_kernels
def test_sources_are_read_as_they_are_needed():
    """And who does not want the rest has nothing more done."""
    read, pipeline = [], Counted(0.001)
    workers = Workers(2)
    some = workers.map(pipeline, (read.append(at) or at for at in range(1000)), ahead=5)
    assert [next(some) for _ in range(3)] == [(0, 0), (1, 1), (2, 4)] and len(read) <= 8
    some.close()
    workers.close()
    assert max(chain.from_iterable(pipeline.batches)) < 8


@no_kernels
def test_options():
    for wrong, message in (
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"threads": 1, "batch": 0}, "batch must be at least 1, got 0"),
        ({"threads": 1, "latency": float("nan")}, "latency must be at least 0, got nan"),
    ):
        with pytest.raises(ValueError, match=message):
            Workers(**wrong)


@compiled_only
@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (1, 3), (2, 4)])
def test_the_same_bits_as_one_at_a_time(pets, thumbnails, threads, batch):
    model, names = npmobilenet.load(pets), sorted(map(str, thumbnails.iterdir()))
    workers = Workers(threads, batch)
    assert results(workers, Classify(model, top=2), names) == [model.classify(name, 2) for name in names]
    features = results(workers, Features(model), names)
    for name, found in zip(names, features, strict=True):
        assert np.array_equal(found, model.features(model.preprocess(name)[None])[0])
    assert Features(model).length == len(features[0])
    workers.close()


@no_kernels
def test_what_a_model_cannot_do(pets):
    model = npmobilenet.load(pets)
    for kind, message in ((Detect, "finds no boxes"), (Segment, "no scores for every pixel")):
        with pytest.raises(ValueError, match=message):
            kind(model)
    with pytest.raises(ValueError, match="no block 'roof'"):
        Features(model, block="roof")
    graph = get_architecture("lraspp_mobilenet_v3_large").graph(1.0, 3)
    with pytest.raises(ValueError, match=r"scores every pixel, and no class of a whole photograph; segment\(photo\)"):
        Classify(npmobilenet.Model(graph, random_weights(graph), architecture="lraspp_mobilenet_v3_large"))
