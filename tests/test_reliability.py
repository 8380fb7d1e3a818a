"""Threads, forks and interrupts: what must hold at every moment is tried at many.

Trials that need a process of their own run a few times here; ``NPMOBILENET_TRIALS=60 python -m pytest
tests/test_reliability.py`` runs each so many times, and docs/reliability.md has what that gave.
"""

from __future__ import annotations

import importlib
import linecache
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.engine import Engine
from npmobilenet.idle import VARIABLE
from npmobilenet.kernels.sharing import give_lock, once
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.walk import threads
from tests.conftest import compiled_only

REPOSITORY = Path(__file__).parents[1]
TRIALS = int(os.environ.get("NPMOBILENET_TRIALS", "0"))
SECONDS = 120  # after which a process hangs

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")


def trials(few: int) -> range:
    """How often a trial is made: the environment's number, or a few."""
    return range(TRIALS or few)


def python(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a program in a new interpreter."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def small_model(**options) -> npmobilenet.Model:
    """A network of ten classes, and random weights."""
    graph = get_architecture("mobilenet_v2").graph(0.25, 10)
    return npmobilenet.Model(graph, random_weights(graph, 2), architecture="mobilenet_v2", **options)


def image(size: int, seed: int = 0, number: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((number, 3, size, size), np.float32)


# Made once ----------------------------------------------------------------------------------------------------


def test_what_two_threads_ask_for_at_once_is_made_once():
    made, start, found = [], threading.Barrier(4), []

    @once
    def make(name: str, option: int = 0) -> object:
        made.append((name, option))
        threading.Event().wait(0.02)  # so that all of them are here
        return object()

    def ask() -> None:
        start.wait()
        found.append((make("a"), make("a", option=1)))

    workers = [threading.Thread(target=ask) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert made == [("a", 0), ("a", 1)]
    assert len(set(found)) == 1


def test_what_could_not_be_made_is_tried_again():
    tries = []

    @once
    def make() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("not yet")
        return len(tries)

    with pytest.raises(OSError, match="not yet"):
        make()
    assert (make(), make()) == (2, 2)


FIRST_CALLS = """
import gc, threading, numpy as np, npmobilenet
from npmobilenet.kernels.vector.library import Library
made, begin = [], Library.__init__
def counted(self, name, *arguments):
    made.append(name)
    begin(self, name, *arguments)
Library.__init__ = counted
models = [npmobilenet.load("mobilenet_v2") for _ in range(2)]
x, start, results = np.ones((1, 3, 96, 96), np.float32), threading.Barrier(2), {}
def work(number):
    start.wait()
    results[number] = models[number](x, threads=1)
workers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
for worker in workers: worker.start()
for worker in workers: worker.join()
gc.collect()
waste = [np.ones(1 << 16) for _ in range(100)]
again = [model(x, threads=1) for model in models]
right = all(np.array_equal(y, results[0]) for y in (results[1], *again)) and len(made) == len(set(made))
print("right" if right else made)
"""


@compiled_only
def test_the_first_calls_of_two_models_from_two_threads():
    for _ in trials(3):
        run = python(FIRST_CALLS)
        assert (run.returncode, run.stdout.strip()) == (0, "right"), run.stderr


@compiled_only
def test_machine_code_outlives_its_library():
    """Plans and threads hold bare addresses."""
    import ctypes
    import gc

    from npmobilenet.kernels.blocked.code import common
    from npmobilenet.kernels.vector.target import host

    again = Library("common", host(), common.define, None)
    address = again.address("clear")
    first = ctypes.string_at(address, 16)
    del again
    gc.collect()
    assert ctypes.string_at(address, 16) == first


# Interrupts ---------------------------------------------------------------------------------------------------


@compiled_only
@pytest.mark.parametrize("number", [1, 5])
def test_an_interrupt_at_any_line_of_a_call_harms_no_later_call(number):
    """The first thing that an interrupted call did stays undone: memory that helpers may write to is not used again."""
    model, x, other = small_model(), image(96, number=number), image(96, 1, number)
    expected = [model._engine.run(each, 2) for each in (x, other)]
    files = {
        f"{name}.py" for name in ("engine", "plan", "threads", "idle", "call", "job", "memory", "sharing", "thread")
    }
    interrupted = 0

    def stop_at(line: int):
        left = [line]

        def trace(frame, event, argument):
            if Path(frame.f_code.co_filename).name not in files:
                return None
            # No signal is looked at where a block is left, which Python counts to the line of its "with".
            if event == "line" and not linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith(
                "with "
            ):
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt
            return trace

        return trace

    for line in range(1, 2000):
        sys.settrace(stop_at(line))
        try:
            model._engine.run(x, 2)
        except KeyboardInterrupt:
            interrupted += 1
        else:
            break
        finally:
            sys.settrace(None)
        assert np.array_equal(model._engine.run(other, 2), expected[1]), line
        assert np.array_equal(model._engine.run(x, 2), expected[0]), line
    assert 20 < interrupted < 1999


AIMED = """
import random, signal, sys, time, numpy as np, npmobilenet
model, x = npmobilenet.load("mobilenet_v2"), np.random.default_rng(0).standard_normal((1, 3, 256, 256), np.float32)
expected = model(x, threads=2)
signal.signal(signal.SIGALRM, signal.default_int_handler)
start = time.perf_counter(); model(x, threads=2); seconds = time.perf_counter() - start
draw, got = random.Random(int(sys.argv[1])), 0
for _ in range(int(sys.argv[2])):
    try:
        signal.setitimer(signal.ITIMER_REAL, max(1e-5, draw.random() ** 3 * seconds))
        model(x, threads=2)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        got += 1
    if not np.array_equal(model(x, threads=2), expected):
        sys.exit("wrong")
print(got)
"""


@compiled_only
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this platform")
def test_interrupts_at_random_moments():
    for seed in range(6 if TRIALS else 1):
        tries = 5 * (TRIALS or 12)
        run = python(AIMED, str(seed), str(tries))
        assert run.returncode == 0, run.stderr
        assert int(run.stdout) > tries / 3


# Forks --------------------------------------------------------------------------------------------------------

FORK = """
import os, signal, sys, tempfile, threading, time, numpy as np, npmobilenet
situation, moment = sys.argv[1], float(sys.argv[2])
x = np.random.default_rng(0).standard_normal((2, 3, 96, 96), np.float32)
go_on = True
def other_sizes(model):
    size = 0
    while go_on:
        size += 1
        model(x[:, :, : 33 + size % 60, : 40 + size % 9], threads=2)
def same_size(model):
    while go_on:
        model(x[:1], threads=2)
def first_call(model):
    model(x, threads=2)
def photographs(model):
    while go_on:
        model.preprocess(np.zeros((300, 400, 3), np.uint8))
model = npmobilenet.load("mobilenet_v2")
if situation not in ("first_call", "plain_loops"):
    model(x, threads=2)
busy = {"other_sizes": other_sizes, "same_size": same_size, "first_call": first_call, "photographs": photographs,
        "plain_loops": lambda _: npmobilenet.load("mobilenet_v2", backend="plain")(x[:1])}.get(situation)
if busy:
    worker = threading.Thread(target=busy, args=(model,))
    worker.start()
time.sleep(moment)
child = os.fork()
if child == 0:
    try:
        fresh = npmobilenet.load("mobilenet_v2")
        results = [model(x, threads=2), model(x[:1], threads=2), fresh(x, threads=2), fresh(x, threads=1)]
        right = all(np.array_equal(y, results[0][: len(y)]) for y in results)
        os._exit(0 if right else 3)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(4)
end = time.time() + 60
while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.time() < end:
    time.sleep(0.005)
go_on = False
if not ended[0]:
    os.kill(child, signal.SIGKILL)
if busy:
    worker.join()
print("hangs" if not ended[0] else os.waitstatus_to_exitcode(ended[1]))
"""

SITUATIONS = {  # longest time until the fork, in seconds, and how often it is tried
    "just_called": (0.004, 4),
    "same_size": (0.1, 2),
    "other_sizes": (0.1, 3),
    "photographs": (0.1, 2),
    "first_call": (0.3, 3),
    "first_call, nothing compiled": (2.0, 1),
    "photographs, nothing compiled": (0.2, 1),  # Numba is imported meanwhile
}


@forks
@compiled_only
@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_child_computes_whatever_its_parent_was_doing(situation, tmp_path):
    longest, few = SITUATIONS[situation]
    name, _, nothing_compiled = situation.partition(", ")
    for number in trials(few):
        moment = random.Random(f"{situation} {number}").random() * longest
        empty = {"NPMOBILENET_CACHE_DIR": str(tmp_path / str(number)), "NPMOBILENET_SHIPPED_KERNELS": "0"}
        run = python(FORK, name, str(moment), **empty if nothing_compiled else {})
        assert (run.returncode, run.stdout.strip()) == (0, "0"), f"{moment}: {run.stdout} {run.stderr}"


@forks
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_imports_what_another_thread_was_importing(tmp_path, monkeypatch):
    """Else it waits for ever: for a thread that it does not have."""
    slow = tmp_path / "slowly_imported.py"
    slow.write_text("import sys, time\nsys.slowly_imported_begins.set()\ntime.sleep(0.3)\nend = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, slow.stem, raising=False)
    monkeypatch.setattr(sys, "slowly_imported_begins", begins := threading.Event(), raising=False)
    worker = threading.Thread(target=importlib.import_module, args=("slowly_imported",))
    worker.start()
    begins.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if importlib.import_module("slowly_imported").end else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    worker.join()


@forks
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_finds_locks_open():
    class Owner:
        pass

    owner, taken, done = Owner(), threading.Event(), threading.Event()
    give_lock(owner)

    def hold() -> None:
        with owner._lock:
            taken.set()
            done.wait()

    worker = threading.Thread(target=hold)
    worker.start()
    taken.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if owner._lock.acquire(timeout=5) else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert not owner._lock.acquire(blocking=False)  # the parent's is what it was
    done.set()
    worker.join()
    assert status == 0


# Memory -------------------------------------------------------------------------------------------------------


def kept(engine: Engine) -> int:
    return sum(plan._idle.bytes for plan in engine._plans.values())


@compiled_only
@pytest.mark.parametrize("backend", ["auto", "plain"])
def test_memory_that_is_kept_is_bounded(backend):
    limit = 3_000_000
    model = small_model(keep_bytes=limit, backend=backend)
    sizes = range(32, 200, 24)
    expected = [model(image(size), threads=1) for size in sizes]
    assert 0 < kept(model._engine) <= limit
    workers = [threading.Thread(target=model, args=(image(128),), kwargs={"threads": 1}) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert kept(model._engine) <= limit
    model.release()
    assert not model._engine._plans
    assert all(np.array_equal(model(image(size), threads=1), y) for size, y in zip(sizes, expected, strict=True))
    nothing = small_model(keep_bytes=0, backend=backend)
    assert np.array_equal(nothing(image(56)), model(image(56)))
    assert kept(nothing._engine) == 0


@compiled_only
def test_memory_that_is_let_go_leaves_the_process(monkeypatch):
    """Its pages are unmapped as soon as nobody looks at them, whatever malloc would do."""
    import mmap
    import weakref

    from npmobilenet.kernels import memory

    class Pages(mmap.mmap):
        pass

    made = []

    def mapped(*arguments, **options):
        pages = Pages(*arguments, **options)
        made.append(weakref.ref(pages))
        return pages

    model = small_model()
    monkeypatch.setattr(memory.mmap, "mmap", mapped)
    model(image(512), threads=2)
    assert made and any(pages() is not None for pages in made)
    model.release()
    model(image(32), threads=2)  # helpers keep what they were last given, as long as they are at it
    until = time.monotonic() + 10
    while any(pages() is not None for pages in made) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(pages() is not None for pages in made)


@pytest.mark.parametrize("value", ["-1", "1.5", "64 MB", "lots", "9" * 30])
def test_a_limit_that_is_none(value, monkeypatch):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ValueError, match=f"{VARIABLE} must be a number of bytes") as error:
        small_model(backend="reference")
    assert len(str(error.value)) < 200
    with pytest.raises(ValueError, match="keep_bytes must be a number of bytes"):
        small_model(backend="reference", keep_bytes=value if value.isdecimal() else -1)


def test_the_limit_from_the_environment(monkeypatch):
    monkeypatch.setenv(VARIABLE, "12345")
    assert small_model(backend="reference")._engine.keep_bytes == 12345
    assert small_model(backend="reference", keep_bytes=7)._engine.keep_bytes == 7


# Threads ------------------------------------------------------------------------------------------------------


@compiled_only
def test_more_threads_than_cpus_are_not_started(monkeypatch):
    monkeypatch.setattr("npmobilenet.model.available_cpus", lambda: 2)
    model, before = small_model(), threading.active_count()
    expected = model(image(64), threads=1)
    with pytest.warns(UserWarning, match="threads=5000, but this process may use 2 CPUs"):
        assert np.array_equal(model(image(64), threads=5000), expected)
    assert threading.active_count() <= before + 2
    with pytest.warns(UserWarning, match="threads=7, but this process may use 2 CPUs"):
        assert small_model(threads=7).threads == 2
    assert small_model(threads=3).threads == 2  # a few more are no mistake


@compiled_only
@pytest.mark.parametrize("number", [1, 4])
def test_where_no_thread_may_be_started(number, monkeypatch):
    model, x = small_model(), image(64, number=number)
    expected = model._engine.run(x, 1)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_helpers", threads._Helpers())
    monkeypatch.setattr(threads, "_said", False)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.warns(RuntimeWarning, match="no further thread may be started"):
        assert np.array_equal(model._engine.run(x, 3), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert np.array_equal(model._engine.run(x, 3), expected)


def test_an_error_in_a_shared_loop_ends_it():
    done = []

    def compute(number: int) -> None:
        if number == 3:
            raise LookupError("three")
        done.append(number)

    with pytest.raises(LookupError, match="three"):
        threads.share(compute, 10_000, 3)
    assert len(done) < 10_000
    threads.share(done.append, 5, 2)
    assert sorted(done[-5:]) == [0, 1, 2, 3, 4]
