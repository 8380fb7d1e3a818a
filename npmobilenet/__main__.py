"""``python -m npmobilenet`` is the command ``npmobilenet``."""

import sys

from npmobilenet.cli import main

sys.exit(main())
