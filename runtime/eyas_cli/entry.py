"""How every command of ours ends: one sentence on stderr and the exit code of the table, never a traceback."""

import sys
from collections.abc import Sequence

import typer

from eyas_cli.machine import of_machine
from eyas_contract.errors import EyasError
from eyas_contract.exits import Exit


def run(app: typer.Typer, arguments: Sequence[str] | None) -> None:
    """Run a command line; ends the process with the exit code."""
    try:
        app(args=arguments, standalone_mode=True)
    except EyasError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(Exit.TEMPORARY)
    except BrokenPipeError:
        sys.exit(Exit.DONE)
    except OSError as error:
        sentence, code = of_machine(error)
        print(sentence, file=sys.stderr)
        sys.exit(code)
