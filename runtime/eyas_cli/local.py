"""`eyas local …`: run a job as processes of this machine, look at it, draw it, hurt it."""

import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from eyas_contract.errors import UserError

app = typer.Typer(help="Jobs as processes of this machine.", no_args_is_help=True)
Workdir = Annotated[Path, typer.Argument(help="Folder of the run.")]


def volume_folders(pairs: list[str]) -> dict[str, Path]:
    """NAME=PATH pairs as a mapping. Raises `UserError` for a pair that is not one, or a folder that is not there."""
    volumes: dict[str, Path] = {}
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator or not name or not path:
            raise UserError(f"--volume {pair}: write NAME=PATH, for example models=./models")
        if name in volumes:
            raise UserError(f"--volume {name} is given twice")
        if not Path(path).is_dir():
            raise UserError(f"--volume {name}: {path} is not a folder")
        volumes[name] = Path(path).resolve()
    return volumes


@app.command()
def run(
    job: Annotated[Path, typer.Argument(help="The job file, a DisaggTrainingJob.")],
    workdir: Annotated[Path, typer.Option(help="Folder of the run; the same folder resumes it.")],
    volume: Annotated[list[str] | None, typer.Option(help="NAME=PATH: where a volume of the job lies.")] = None,
) -> None:
    """Run JOB to its end. Run again with the same folder after any kill: it resumes."""
    from eyas_cli.runner import run_job

    raise typer.Exit(run_job(job, workdir, volume_folders(volume or [])))


@app.command()
def status(
    workdir: Workdir,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the job's status as JSON.")] = False,
) -> None:
    """One screen: roles, steps, samples, incidents."""
    from eyas_cli.screens import status_screen

    status_screen(workdir, as_json=as_json)


@app.command()
def logs(
    workdir: Workdir,
    role: Annotated[str | None, typer.Argument(help="A role, or ROLE-INDEX; all of them if left out.")] = None,
    tail: Annotated[int, typer.Option(help="Last lines of each file.")] = 20,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what comes.")] = False,
) -> None:
    """Print the logs of the run's roles."""
    from eyas_cli.screens import print_logs

    print_logs(workdir, role, tail, follow=follow)


@app.command()
def plot(
    workdir: Workdir,
    output: Annotated[Path | None, typer.Option(help="The PNG; DIR/plot.png if left out.")] = None,
) -> None:
    """Draw loss and acceptance over steps, with the incidents marked."""
    from eyas_cli.screens import draw_run

    typer.echo(f"wrote {draw_run(workdir, output)}")


@app.command()
def kill(
    workdir: Workdir,
    role: Annotated[str, typer.Argument(help="producer, consumer, metadata, store-master, store-node, or all.")],
    index: Annotated[int | None, typer.Option(help="Only this replica or rank.")] = None,
    signal_name: Annotated[str, typer.Option("--signal", help="KILL, STOP, CONT or TERM.")] = "KILL",
) -> None:
    """Send a signal to the processes of a role: a drill."""
    from eyas_cli.runs import Run

    known = {"KILL", "STOP", "CONT", "TERM"}
    if signal_name.upper() not in known:
        raise UserError(f"--signal {signal_name}: one of {', '.join(sorted(known))}")
    number = signal.Signals[f"SIG{signal_name.upper()}"]
    for entry in Run(workdir).kill(role, index, number):
        typer.echo(f"{time.strftime('%H:%M:%S')} sent {number.name} to {entry.role}-{entry.index} (pid {entry.pid})")
