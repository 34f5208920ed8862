"""`python -m movies`, the same as the command `movies`."""

import sys

from movies.cli import main

sys.exit(main())
