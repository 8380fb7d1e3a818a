"""The examples that compute more than they call."""

import runpy

import numpy as np
import pytest

from npmobilenet.tasks.detection import Detection
from tests.conftest import EXAMPLES


@pytest.fixture(scope="module")
def video():
    return runpy.run_path(str(EXAMPLES / "video_detect.py"))


def person(left, top, label="person"):
    return Detection(label, 0.9, (left, top, left + 100, top + 200))


def test_things_keep_their_numbers(video):
    """Two that pass each other, one that is missed for a while, and one of another kind in its place."""
    tracker = video["Tracker"](every=2)
    for step in range(12):
        tracker.move()
        if step % 2 == 0:
            found = [person(20 * step, 0), person(300 - 20 * step, 50)]
            tracker.meet(found[:1] if step == 8 else found[::-1] if step % 4 else found)
    assert [(track.number, track.missed) for track in tracker.tracks] == [(1, 0), (2, 0)]
    assert [track.box[0] for track in tracker.tracks] == pytest.approx([220, 80], abs=25)
    for _ in range(3):
        tracker.meet([person(200, 0, "dog")])
    assert [(track.number, track.label) for track in tracker.tracks] == [(3, "dog")]
    tracker.meet([])
    assert tracker.tracks[0].missed == 1


def test_a_camera_pans(video):
    photograph = np.arange(40 * 100 * 3, dtype=np.uint8).reshape(40, 100, 3)
    frames = list(video["panning"](photograph, frames=10, part=0.5))
    assert {frame.shape for frame in frames} == {(20, 50, 3)}
    assert np.array_equal(frames[0], photograph[:20, :50]) and np.array_equal(frames[5], photograph[:20, 50:])
