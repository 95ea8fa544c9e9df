"""Rules of the house that no linter knows: sizes, docstrings, forbidden calls, clean imports."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    ROOT / "operator" / "eyas_operator",
    ROOT / "runtime" / "eyas_contract",
    ROOT / "runtime" / "eyas_runtime",
    ROOT / "runtime" / "eyas_cli",
)
SOURCES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _calls(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph(*(package.name for package in PACKAGES), cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 300
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_package_replaces_the_standard_library_operator() -> None:
    # A regular package named `operator` on the path breaks `import collections` for everybody.
    for place in ("operator/__init__.py", "tests/operator", "tests/eyas_runtime/operator/__init__.py"):
        assert not (ROOT / place).exists(), place
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=_name)
def test_every_module_says_why_it_exists(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{_name(path)} has no module docstring"


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_modules_and_functions_fit_the_eye(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{_name(path)}:{node.lineno} {node.name} has {lines} lines"


DOORS = {
    # call -> the only files that may make it, and why
    "torch.load": {"capture/feature_files.py"},  # SpecForge's files, weights_only
    "os.rename": {"files.py"},  # the only renamer: it knows which fsyncs a rename needs
    "os.replace": {"files.py"},
    "yaml.load": set(),
    "torch.save": set(),
}


@pytest.mark.parametrize("call", DOORS)
def test_dangerous_calls_have_one_door(call: str) -> None:
    for path in SOURCES:
        if "eyas_operator" in path.parts and call in {"os.rename", "os.replace"}:
            continue  # The operator cannot import the runtime; its local backend has its own single writer.
        found = [line for line, name in _calls(path) if name == call]
        allowed = any(str(path).endswith(door) for door in DOORS[call])
        assert not found or allowed, f"{_name(path)}:{found} calls {call}"


def test_whoever_decodes_catches_more_than_decode_errors() -> None:
    # Wrong UTF-8 and deep nesting raise others: `eyas_contract.decoding` says which.
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                caught = ast.unparse(node.type)
                assert "msgspec.DecodeError" not in caught, f"{_name(path)}:{node.lineno} must catch UNDECODABLE"


def test_the_operator_renames_in_one_file() -> None:
    renaming = {
        _name(path)
        for path in SOURCES
        if "eyas_operator" in path.parts
        for _, name in _calls(path)
        if name in {"os.rename", "os.replace"} or (name.endswith((".rename", ".replace")) and name.startswith("temp"))
    }
    assert len(renaming) <= 1, renaming


def test_hazard_32_every_torch_load_is_weights_only() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert safe.get("weights_only") == "True", f"{_name(path)}:{node.lineno}"


def test_hazard_32_no_object_collectives_and_no_torchrun() -> None:
    # Both unpickle bytes that another pod wrote.
    banned = ("all_gather_object", "broadcast_object_list", "gather_object", "scatter_object_list")
    for path in SOURCES:
        for line, name in _calls(path):
            assert not name.endswith(banned), f"{_name(path)}:{line} calls {name}"
        imports = [
            ast.unparse(n) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Import | ast.ImportFrom)
        ]
        assert not any("torch.distributed.elastic" in text or "distributed.checkpoint" in text for text in imports)


TORCH_FREE = [
    "eyas_contract.client",
    "eyas_operator.plan",
    "eyas_operator.desired",
    "eyas_runtime.supervisor.__main__",
    "eyas_runtime.metadata.service.__main__",
    "eyas_runtime.metadata.fake",
    "eyas_runtime.features.blobs",
    "eyas_cli.main",
]


@pytest.mark.parametrize("module", TORCH_FREE)
def test_control_plane_never_imports_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["eyas_operator.plan", "eyas_operator.desired", "eyas_contract.wire"])
def test_operator_and_contract_stay_light(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'numpy', 'sqlite3'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


WAITED_FOR = {
    # what a person types -> modules that it must not wait for
    "eyas_cli.cluster.commands": {"kubernetes", "aiohttp", "pydantic", "rich", "matplotlib", "msgspec", "yaml"},
    "eyas_cli.cluster.screens, eyas_cli.cluster.access": {"matplotlib", "numpy", "torch", "eyas_operator.api.job"},
}


@pytest.mark.parametrize("modules", WAITED_FOR)
def test_the_plugin_answers_without_waiting_for_what_it_does_not_use(modules: str) -> None:
    code = f"import sys, {modules}; print(sorted({WAITED_FOR[modules]!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_failpoint_is_placed_and_every_place_is_named() -> None:
    from eyas_runtime import failpoints

    placed: set[str] = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("hit") and node.args:
                argument = node.args[0]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and "." in argument.value:
                    placed.add(argument.value)
    assert placed == set(failpoints.NAMES)


def test_no_machine_path_and_no_registry_host_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    banned = re.compile(r"(^|[^a-zA-Z0-9._-])/(wor[k]|roo[t]|far[m])/|(pypi\.or[g]|files\.pythonhoste[d])")
    for name in listed:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".sh", ".yaml", ".txt", ""} and path.is_file():
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                assert not banned.search(line), f"{name}:{number}: {line[:120]}"


def test_readme_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http:", "https:")):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
