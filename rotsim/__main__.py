"""``python -m rotsim`` is the `rotsim` command."""

import sys

from rotsim.cli import main

sys.exit(main())
