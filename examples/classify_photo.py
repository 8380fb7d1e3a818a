"""Name what photographs show: python examples/classify_photo.py [PHOTOGRAPH ...]"""

import sys
from pathlib import Path

import npmobilenet

photographs = sys.argv[1:] or [str(Path(__file__).parent / "coffee.png")]
model = npmobilenet.load("mobilenet_v2")
for photograph, predictions in zip(photographs, model.classify(photographs, top=3), strict=True):
    print(photograph)
    for label, probability, _ in predictions:
        print(f"  {probability:.3f}  {label}")
