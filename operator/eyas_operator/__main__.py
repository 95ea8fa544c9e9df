"""`python -m eyas_operator`: the operator on a cluster, as its image runs it."""

from eyas_operator.process.main import main

if __name__ == "__main__":
    main()
