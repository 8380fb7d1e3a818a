"""Which photographs look alike: cosine similarity of pooled features.

python examples/similar_photos.py PHOTOGRAPH PHOTOGRAPH ...
"""

import sys

import numpy as np

import npmobilenet

model = npmobilenet.load("mobilenet_v2")
features = model.features(np.stack([model.preprocess(photograph) for photograph in sys.argv[1:]]))
features /= np.linalg.norm(features, axis=1, keepdims=True)
for name, row in zip(sys.argv[1:], features @ features.T, strict=True):
    print(" ".join(f"{similarity:5.2f}" for similarity in row), name)
