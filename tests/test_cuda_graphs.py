"""Recording launches with the driver: on a driver that only writes down what it is told."""

import ctypes

import pytest

from npmobilenet.cuda import graphs as cuda_graphs
from npmobilenet.cuda.graphs import Driver, DriverError, record

STREAM, GRAPH, EXECUTABLE = 11, 22, 33


class FakeFunction:
    def __init__(self, library, name):
        self.library, self.name = library, name

    def __call__(self, *arguments):
        self.library.calls.append((self.name, *(getattr(a, "value", a) for a in arguments)))
        if self.name == self.library.failing:
            return 900
        out = {"cuStreamCreate": (0, STREAM), "cuStreamEndCapture": (1, GRAPH), "cuGraphGetNodes": (2, 7)}
        out["cuGraphInstantiateWithFlags"] = (0, EXECUTABLE)
        if self.name in out:
            place, value = out[self.name]
            arguments[place]._obj.value = value
        if self.name == "cuGetErrorName":
            arguments[1]._obj.value = b"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
        return 0


class FakeLibrary:
    """The driver; ``failing`` is the function that returns an error."""

    def __init__(self, failing=None):
        self.calls, self.failing = [], failing
        for name in cuda_graphs._SIGNATURES:
            setattr(self, name, FakeFunction(self, name))

    @property
    def names(self):
        return [call[0] for call in self.calls]


def test_launches_are_recorded_on_a_stream_of_their_own():
    library, launched = FakeLibrary(), []
    graph = record(launched.append, Driver(library))
    assert launched == [STREAM] and graph.nodes == 7
    assert library.names == [
        *("cuStreamCreate", "cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphGetNodes"),
        *("cuGraphInstantiateWithFlags", "cuGraphDestroy", "cuStreamDestroy_v2"),
    ]
    graph.launch(5)
    assert library.calls[-1] == ("cuGraphLaunch", EXECUTABLE, 5)
    del graph
    assert library.calls[-1] == ("cuGraphExecDestroy", EXECUTABLE)


@pytest.mark.parametrize("name", ["cuStreamCreate", "cuStreamBeginCapture_v2", "cuStreamEndCapture"])
def test_without_a_recording_one_goes_on(name):
    library = FakeLibrary(name)
    with pytest.warns(UserWarning, match=f"one by one: {name}: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"):
        assert record(lambda stream: None, Driver(library)) is None
    assert ("cuStreamDestroy_v2" in library.names) == (name != "cuStreamCreate")


def test_a_graph_that_cannot_be_made_leaves_nothing_behind():
    library = FakeLibrary("cuGraphInstantiateWithFlags")
    with pytest.warns(UserWarning, match="cuGraphInstantiateWithFlags"):
        assert record(lambda stream: None, Driver(library)) is None
    assert library.names[-2:] != ["cuGraphExecDestroy"]
    assert {"cuGraphDestroy", "cuStreamDestroy_v2"} <= set(library.names)


def test_a_launch_that_fails_ends_the_recording():
    def launch(stream):
        raise OSError("no such kernel")

    library = FakeLibrary()
    with pytest.warns(UserWarning, match="no such kernel"):
        assert record(launch, Driver(library)) is None
    assert library.names.index("cuStreamEndCapture") < library.names.index("cuStreamDestroy_v2")


def test_switched_off(monkeypatch):
    monkeypatch.setenv("NPMOBILENET_CUDA_GRAPHS", "0")
    library = FakeLibrary()
    assert record(pytest.fail, Driver(library)) is None
    assert not library.calls


def test_no_driver_or_an_old_one(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_LIBRARY", "no_such_library.so")
    with pytest.raises(DriverError, match="no CUDA driver with graphs"):
        Driver()
    with pytest.raises(DriverError, match="cuGraphLaunch"):
        Driver(type("Old", (), {name: None for name in cuda_graphs._SIGNATURES if name != "cuGraphLaunch"})())
    cuda_graphs.driver.cache_clear()
    assert cuda_graphs.driver() is None and record(pytest.fail) is None
    cuda_graphs.driver.cache_clear()


def test_signatures_are_those_of_pointers():
    """A handle passed as a 32-bit integer would be cut."""
    handles = {name: types for name, types in cuda_graphs._SIGNATURES.items() if "Create" not in name}
    assert all(ctypes.c_int not in types[:1] for name, types in handles.items() if name != "cuGetErrorName")
