"""Entry of `kubectl eyas` (the executable `kubectl-eyas`): parses, runs one command, ends as every command of ours.

Commands import what they need inside their functions, so that help answers at once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from eyas_cli import entry

app = typer.Typer(
    name="kubectl eyas",
    help="Draft trainings on a cluster: look at them, and hurt them to see that they recover.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Name = Annotated[str, typer.Argument(help="Name of the job.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace; the context's if left out.")]
Context = Annotated[str, typer.Option(help="Context of the kubeconfig; the current one if left out.")]
Kubeconfig = Annotated[str, typer.Option(help="The kubeconfig; $KUBECONFIG or ~/.kube/config if left out.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def status(
    name: Name,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until the job ends.")] = False,
    live: Annotated[bool, typer.Option(help="Ask the metadata service itself where that is allowed.")] = True,
    as_json: Json = False,
) -> None:
    """One screen: roles, pods, progress, rate, time left, incidents."""
    from eyas_cli.cluster.access import Where, with_access
    from eyas_cli.cluster.screens import show_status

    where = Where(namespace=namespace, context=context, kubeconfig=kubeconfig)
    with_access(where, lambda access: show_status(access, name, watch=watch, live=live, as_json=as_json))


@app.command()
def logs(
    name: Name,
    unit: Annotated[str, typer.Argument(help="A role, or ROLE-INDEX; all of them if left out.")] = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    tail: Annotated[int, typer.Option(min=0, help="Last lines of each pod.")] = 20,
    attempt: Annotated[int | None, typer.Option(help="Only consumers of this attempt.")] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what comes.")] = False,
) -> None:
    """Print what the job's pods said."""
    from eyas_cli.cluster.access import Where, with_access
    from eyas_cli.cluster.logs import print_logs

    where = Where(namespace=namespace, context=context, kubeconfig=kubeconfig)
    with_access(where, lambda access: print_logs(access, name, unit, attempt=attempt, tail=tail, follow=follow))


@app.command()
def plot(
    name: Name,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The PNG; NAME.png if left out.")] = None,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Draw loss and acceptance over steps, with the incidents marked, while the job's metadata service runs."""
    from eyas_cli.cluster.access import Where, with_access
    from eyas_cli.cluster.screens import draw_job

    where = Where(namespace=namespace, context=context, kubeconfig=kubeconfig)
    typer.echo(f"wrote {with_access(where, lambda access: draw_job(access, name, output))}")


@app.command()
def events(name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = "") -> None:
    """Print what was said about the job and its pods."""
    from eyas_cli.cluster.access import Where, with_access
    from eyas_cli.cluster.events import print_events

    where = Where(namespace=namespace, context=context, kubeconfig=kubeconfig)
    with_access(where, lambda access: print_events(access, name))


@app.command()
def doctor(
    name: Annotated[str, typer.Argument(help="A job to look at, too.")] = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    *,
    as_json: Json = False,
) -> None:
    """Check definition, operator, your rights, storage, devices, and why a job's pods wait."""
    from eyas_cli.checks import tell
    from eyas_cli.cluster.access import Where, with_access
    from eyas_cli.cluster.doctor import examine

    where = Where(namespace=namespace, context=context, kubeconfig=kubeconfig)
    raise typer.Exit(tell(with_access(where, lambda access: examine(access, name)), as_json=as_json))


@app.command()
def render(
    job: Annotated[Path, typer.Argument(help="The job file.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the objects.")] = "default",
) -> None:
    """Print every object that the job would become, as YAML, without asking a cluster."""
    from eyas_cli.render import render_job

    typer.echo(render_job(job, namespace), nl=False)


@app.command()
def kill(
    name: Name,
    unit: Annotated[str, typer.Argument(help="A role, ROLE-INDEX, or all.")],
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    signal: Annotated[str, typer.Option(help="KILL, STOP, CONT or TERM to the processes; needs pods/exec.")] = "",
    grace: Annotated[int, typer.Option(min=0, help="Seconds between SIGTERM and SIGKILL of a deleted pod.")] = 0,
    *,
    evict: Annotated[bool, typer.Option("--evict", help="Evict, as a drain does: budgets are kept.")] = False,
) -> None:
    """Delete or evict pods, or signal their processes: a drill."""
    from eyas_cli.cluster.access import Where, with_access
    from eyas_cli.cluster.kill import kill as hurt

    where = Where(namespace=namespace, context=context, kubeconfig=kubeconfig)
    for sentence in with_access(
        where, lambda access: hurt(access, name, unit, signal=signal.upper(), evict=evict, grace_seconds=grace)
    ):
        typer.echo(sentence)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the plugin; ends the process with the exit code."""
    entry.run(app, arguments)
