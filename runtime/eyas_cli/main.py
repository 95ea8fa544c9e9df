"""Entry of the `eyas` command: parses, runs one command, maps errors to one sentence and an exit code.

Commands import what they need inside their functions, so that help answers at once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from eyas_cli import entry, local

app = typer.Typer(
    name="eyas",
    help="Train EAGLE3 drafts with inference and training apart; kill anything, get the same weights.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(local.app, name="local")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


@app.command()
def render(
    job: Annotated[Path, typer.Argument(help="The job file.")],
    namespace: Annotated[str, typer.Option(help="Namespace of the objects.")] = "default",
) -> None:
    """Print every Kubernetes object that the job would become, as YAML."""
    from eyas_cli.render import render_job

    typer.echo(render_job(job, namespace), nl=False)


@app.command()
def doctor(
    workdir: Annotated[Path | None, typer.Argument(help="Folder of a run to look at, too.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Check versions, libraries, ports, memory, disk, and a run's database."""
    from eyas_cli.doctor import report

    raise typer.Exit(report(workdir, as_json=as_json))


@app.command()
def audit(workdir: Annotated[Path, typer.Argument(help="Folder of the run.")], *, as_json: Json = False) -> None:
    """Promise 3 from the ledger and the store itself: trained once, trained twice, missing."""
    from eyas_cli.audit import report

    raise typer.Exit(report(workdir, as_json=as_json))


@app.command()
def ingest(
    folders: Annotated[list[Path], typer.Argument(help="Folders of SpecForge feature files (*.ckpt, *.ckpt.gz).")],
    manifest: Annotated[Path, typer.Option(help="Where to write the tensor-free JSON manifest.")],
    max_length: Annotated[int, typer.Option(help="Tokens per sample; longer ones are cut.")] = 2048,
) -> None:
    """Read and check existing feature files, and list them in a manifest."""
    from eyas_cli.after import ingest_folders

    typer.echo(ingest_folders(folders, manifest, max_length))


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="Folder of a finished run, or one checkpoint directory.")],
    output: Annotated[Path, typer.Argument(help="New folder for the draft.")],
    layout: Annotated[str, typer.Option(help="sglang (also vLLM) or huggingface.")] = "sglang",
    target: Annotated[Path | None, typer.Option(help="Folder of the target; huggingface needs it.")] = None,
    *,
    best: Annotated[
        bool, typer.Option("--best", help="The checkpoint with the lowest loss on held-out prompts.")
    ] = False,
) -> None:
    """Write the draft as safetensors for SGLang, vLLM or Hugging Face."""
    from eyas_cli.after import export_draft

    typer.echo(export_draft(source, output, layout, target, best=best))


@app.command("eval")
def evaluate(
    draft: Annotated[Path, typer.Option(help="Folder of an exported draft.")],
    target: Annotated[Path, typer.Option(help="Folder of the target model.")],
    prompts: Annotated[Path, typer.Option(help="JSONL of prompts.")],
    limit: Annotated[int, typer.Option(help="Evaluate at most so many prompts.")] = 16,
    tokens: Annotated[int, typer.Option(help="New tokens per prompt.")] = 64,
    *,
    as_json: Json = False,
) -> None:
    """Greedy speculative decoding of draft and target: accepted length, and proof that the text is the target's own."""
    from eyas_cli.after import evaluate_draft

    raise typer.Exit(evaluate_draft(draft, target, prompts, limit, tokens, as_json=as_json))


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="store, metadata, recovery, goodput, step, cluster or operator.")],
    job: Annotated[
        Path | None,
        typer.Option(help="recovery, goodput, cluster: the job to hurt; without it, a small one (cluster: none)."),
    ] = None,
    volume: Annotated[list[str] | None, typer.Option(help="NAME=PATH, as for eyas local run.")] = None,
    seconds: Annotated[
        int | None, typer.Option(min=1, help="goodput: length of each arm (180). operator: of its rest (60).")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="operator: jobs at a time.")] = 500,
    pods: Annotated[int, typer.Option(min=1, help="operator: pods of all jobs together.")] = 10_000,
    deaths: Annotated[int, typer.Option(min=1, help="operator: producers that die in each arm.")] = 200,
    *,
    as_json: Json = False,
) -> None:
    """Measure one goal: both arms and their ratio."""
    from eyas_cli.bench.dispatch import Asked, run_bench

    folders = local.volume_folders(volume or [])
    asked = Asked(job=job, volumes=folders, seconds=seconds, jobs=jobs, pods=pods, deaths=deaths)
    run_bench(name, asked, as_json=as_json)


@app.command()
def demo(
    assets: Annotated[Path, typer.Option(help="Folder with the unpacked packages of model and problems.")],
    cache: Annotated[Path, typer.Option(help="Folder that may keep the converted model between runs.")],
    output: Annotated[Path, typer.Option(help="Folder of the demo.")],
) -> None:
    """Prepare the demo's model and text (`make demo` calls it)."""
    from eyas_cli.demo import prepare

    typer.echo(prepare(assets, cache, output))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with the exit code."""
    entry.run(app, arguments)
