"""Ray Data: ``dataset.map_batches(npmobilenet.ray.Predictor, fn_constructor_kwargs={"model": "mobilenet_v2"})``.

The same class as everywhere; this is where people who use Ray look for it.
"""

from npmobilenet.distributed import Predictor

__all__ = ["Predictor"]
