"""`python -m eyas_cli` is `eyas`."""

from eyas_cli.main import main

main()
