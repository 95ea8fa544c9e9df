"""`python -m eyas_operator.api.crd_file FILE` writes the generated CRD as the chart carries it."""

import sys
from pathlib import Path
from typing import Final

import yaml

from eyas_operator.api.crd import crd

HEADER: Final = "# Generated from the types in eyas_operator/api by `make crd`; a test compares. Never edit it here.\n"


def crd_yaml() -> str:
    """The file's text; equal types give equal bytes."""
    return HEADER + yaml.safe_dump(crd(), sort_keys=False, width=110, allow_unicode=True)


def main() -> None:
    """Write the file that the only argument names."""
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(crd_yaml(), encoding="utf-8")


if __name__ == "__main__":
    main()
