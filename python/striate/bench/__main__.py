"""``python -m striate.bench`` is the command ``striate``."""

import sys

from .cli import main

sys.exit(main())
