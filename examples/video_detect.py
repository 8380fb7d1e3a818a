"""Things in a video, followed from frame to frame: boxes every N frames, matched by overlap, and moved on in between.

python examples/video_detect.py FRAME FRAME ...        the frames in their order, as files
python examples/video_detect.py PHOTOGRAPH             a camera that pans over a photograph

Frames are uint8 arrays (height, width, 3): those of any video library serve as well.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import numpy as np

import npmobilenet
from npmobilenet.image import read_image
from npmobilenet.tasks.boxes import overlaps

SAME = 0.3  # overlap with which a thing is the one that was there before
PATIENCE = 2  # times that it may be missed


@dataclass
class Track:
    """One thing on its way."""

    number: int
    label: str
    box: np.ndarray
    speed: np.ndarray = field(default_factory=lambda: np.zeros(4))  # of its edges, in pixels a frame
    missed: int = 0


class Tracker:
    """Gives things numbers that they keep."""

    def __init__(self, every: int) -> None:
        self.every, self.tracks, self.numbers = every, [], count(1)

    def move(self) -> None:
        """Go on to the next frame, as fast as before."""
        for track in self.tracks:
            track.box = track.box + track.speed

    def meet(self, found: list[npmobilenet.Detection]) -> None:
        """Match what was found with what was expected here: the largest overlap first, each once."""
        boxes = np.array([one.box for one in found]).reshape(-1, 4)
        shared = overlaps(np.array([track.box for track in self.tracks]).reshape(-1, 4), boxes)
        for track, row in zip(self.tracks, shared, strict=True):
            row[[one.label != track.label for one in found]] = 0
            track.missed += 1
        new = set(range(len(found)))
        while shared.size and shared.max() > SAME:
            at, which = np.unravel_index(shared.argmax(), shared.shape)
            shared[at], shared[:, which] = 0, 0
            track = self.tracks[at]
            if track.missed == 1:  # it was there last time, too
                track.speed += (boxes[which] - track.box) / self.every
            track.box, track.missed = boxes[which], 0
            new.discard(which)
        self.tracks = [track for track in self.tracks if track.missed <= PATIENCE]
        self.tracks += [Track(next(self.numbers), found[which].label, boxes[which]) for which in sorted(new)]


def panning(photograph: np.ndarray, frames: int = 90, part: float = 0.7) -> Iterator[np.ndarray]:
    """Frames of a camera that goes from the left of a photograph to its right, and back."""
    height, width = photograph.shape[:2]
    wide = int(part * width)
    for frame in range(frames):
        left = int((width - wide) * (0.5 - 0.5 * np.cos(2 * np.pi * frame / frames)))
        yield photograph[: int(part * height), left : left + wide]


def main() -> None:
    """Follow what there is, and say how fast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", nargs="+")
    parser.add_argument("--model", default="ssdlite_mobilenet_v2_person")
    parser.add_argument("--every", type=int, default=5, help="frames from one detection to the next (default 5)")
    options = parser.parse_args()
    frames = map(read_image, options.frames) if len(options.frames) > 1 else panning(read_image(options.frames[0]))
    model = npmobilenet.load(options.model)
    model.detect(np.zeros((300, 300, 3), np.uint8))  # compiles
    tracker, seconds, frame = Tracker(options.every), 0.0, 0
    for frame, picture in enumerate(frames, 1):
        start = time.perf_counter()
        tracker.move()
        if frame % options.every == 1 % options.every:
            tracker.meet(model.detect(picture))
        seconds += time.perf_counter() - start
        shown = (f"{one.label} {one.number} at {' '.join(f'{edge:.0f}' for edge in one.box)}" for one in tracker.tracks)
        print(f"frame {frame}:", ", ".join(shown) or "nothing")
    print(f"{frame / seconds:.0f} frames a second")


if __name__ == "__main__":
    main()
