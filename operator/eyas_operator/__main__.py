"""`python -m eyas_operator`: the operator on a cluster, as its image runs it."""

import sys

from eyas_operator.process.main import main

if __name__ == "__main__":
    sys.exit(main())
