"""What comes before and after training: ingest of feature files, export of the draft, its evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from eyas_contract.config import TargetConfig
from eyas_contract.errors import UserError
from eyas_contract.exits import Exit


def ingest_folders(folders: Sequence[Path], manifest: Path, max_length: int) -> str:
    """Check feature files and list them in a manifest; returns a sentence."""
    from eyas_runtime.capture.ingest import ingest

    made = ingest(folders, manifest, max_length=max_length)
    tokens = sum(entry.num_tokens for entry in made.files)
    return f"{len(made.files)} feature files with {tokens} tokens of a {made.hidden_size} wide target in {manifest}"


def export_draft(source: Path, output: Path, layout: str, target: Path | None, *, best: bool = False) -> str:
    """Write the draft; returns a sentence."""
    from eyas_runtime.export.draft import export_draft as write
    from eyas_runtime.export.source import open_source

    if layout == "huggingface" and target is None:
        raise UserError("--layout huggingface holds the embedding, too: give --target, the folder of the target model")
    model = TargetConfig(model=str(target)) if target else None
    done = write(open_source(source, best=best), output, layout=layout, target=model)
    return (
        f"exported the draft of step {done.step} to {done.path} ({done.layout} layout, {done.tensors} tensors, "
        f"{done.nbytes / 1e6:.1f} MB)\nweights  {done.weights_sha256}"
    )


def evaluate_draft(draft: Path, target: Path, prompts: Path, limit: int, tokens: int, *, as_json: bool) -> int:
    """Print what the draft is worth; exit code 1 when a text differs from the target's own."""
    from eyas_runtime.evaluate.run import PromptResult, evaluate

    console = Console(stderr=as_json)

    def told(result: PromptResult) -> None:
        kept = sum(turn.accepted for turn in result.rounds)
        console.print(
            f"{result.where}: {result.tokens} tokens in {len(result.rounds)} forwards, {kept} proposals kept, "
            f"text {result.comparison.verdict}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip

    report = evaluate(draft, TargetConfig(model=str(target)), prompts, limit=limit, tokens=tokens, progress=told)
    if as_json:
        print(json.dumps(report.to_json()))
    else:
        console.print(_table(report.acceptance))
        same = f"{report.identical} of {len(report.results)} texts are the target's own, token for token"
        ties = f"; {report.ties} part at a tie of the target itself" if report.ties else ""
        console.print(f"accepted length {report.accepted_length:.3f} tokens a forward; {same}{ties}", highlight=False)
    return Exit.CRASH if report.different else Exit.DONE


def _table(acceptance: Sequence[float]) -> Table:
    table = Table("position", "accepted")
    for place, rate in enumerate(acceptance, 1):
        table.add_row(str(place), f"{rate:.3f}")
    return table
