"""The rules of the house, held by the code itself: imports go downwards, no asserts, scripts stay thin."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "decloss_jax"
MODULES = sorted(path.relative_to(REPOSITORY) for path in PACKAGE.rglob("*.py"))

# Lower tiers never import higher ones; parts of one tier do not import each other unless listed below.
TIERS = (
    {"checks"},
    {"config", "host", "ops"},
    {"data", "models", "losses", "metrics", "weights"},
    {"workdir", "inference"},
    {"training", "evaluation"},
    {"reproduction", "compare_torch"},
    {"commands"},
    {"__main__"},
)
SIBLINGS = {("weights", "models")}  # a file of weights says which network it is of
# LPIPS is a network: this file puts features, weights and distance together, a tier above the other metrics.
COMPOSITIONS = {Path("decloss_jax/metrics/lpips.py"): "workdir"}


def part_of(module: str) -> str:
    """Names the part of the package that a dotted module belongs to: decloss_jax.ops.fourier -> ops."""
    return module.split(".")[1] if "." in module else ""


def imports_of(path: Path) -> set[str]:
    """Lists the modules of the package that a file imports, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("decloss_jax.")}


def tier(part: str) -> int:
    return next(index for index, parts in enumerate(TIERS) if part in parts)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_downwards(path):
    here = COMPOSITIONS.get(path, part_of(".".join(path.with_suffix("").parts)))
    if here in ("", "__init__"):
        return
    for module in imports_of(path):
        there = part_of(module)
        if there in (here, "__version__"):
            continue
        assert tier(there) < tier(here) or (here, there) in SIBLINGS, f"{path} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_package_has_no_assert(path):
    nodes = ast.walk(ast.parse((REPOSITORY / path).read_text()))
    assert not [node.lineno for node in nodes if isinstance(node, ast.Assert)]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_every_public_function_has_a_docstring(path):
    for node in ast.parse((REPOSITORY / path).read_text()).body:
        public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        assert not public or ast.get_docstring(node), f"{path}:{node.lineno} {node.name}"


def test_losses_and_metrics_and_data_know_no_network():
    for path in MODULES:
        if path.parts[1] in ("losses", "metrics", "data") and path not in COMPOSITIONS:
            assert "models" not in {part_of(module) for module in imports_of(path)}, path


def test_data_does_without_jax():
    for path in MODULES:
        if path.parts[1] == "data":
            tree = ast.parse((REPOSITORY / path).read_text())
            names = {
                alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
            }
            assert not {name for name in names if name.split(".")[0] == "jax"}, path


@pytest.mark.parametrize(("script", "lines"), [("train.py", 80), ("evaluate.py", 80)])
def test_scripts_are_thin(script, lines):
    assert len((REPOSITORY / script).read_text().splitlines()) <= lines


def test_every_table_entry_is_tested():
    """Each name of the tables that users choose from stands in some test file."""
    from decloss_jax.data.sources import SOURCES
    from decloss_jax.metrics import METRICS
    from decloss_jax.models import MODELS
    from decloss_jax.training.terms import TERMS

    tests = "".join(path.read_text() for path in (REPOSITORY / "tests").rglob("test_*.py"))
    for table in (SOURCES, METRICS, MODELS, TERMS):
        for name in table:
            assert name in tests, name
