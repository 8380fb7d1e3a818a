"""`npmobilenet.kernels.threads` under a shorter name: the same module, so that what is replaced here is so there."""

import sys

from npmobilenet.kernels import threads

sys.modules[__name__] = threads
