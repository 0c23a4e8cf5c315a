"""`python -m pgsonar` is `pgsonar`."""

import sys

from pgsonar.commands import main

sys.exit(main())
