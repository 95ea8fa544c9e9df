"""Entry point: `python -m eyas_runtime.supervisor --role ROLE [--processes N] -- COMMAND ...`."""

import os
import sys

from eyas_runtime.process import adopt_orphans, run_role
from eyas_runtime.supervisor.loop import Supervisor
from eyas_runtime.supervisor.settings import read_settings


def main() -> int:
    """Supervise one pod; returns its exit code. Raises `UserError` for wrong arguments or settings."""
    settings = read_settings(sys.argv[1:], os.environ)
    adopt_orphans()
    return Supervisor(settings, os.environ).run()


if __name__ == "__main__":
    run_role(main)
