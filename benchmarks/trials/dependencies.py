"""Runs the tests with the lowest and with the newest versions that the requirements allow.

    python benchmarks/trials/dependencies.py [--versions lowest newest] [--pythons python3.13]
                                 [--workers 2] [--out results/trials/dependencies.json]

Each run uses a fresh environment in a temporary folder. "lowest" installs the packages of requirements.txt
and requirements-test.txt at the lowest version of their ranges, and any fitting version of their
dependencies. "newest" installs the newest versions of all. uv solves this, in a separate environment. It
ignores pip's settings, so set an index by its own variables (UV_INDEX_URL, UV_FIND_LINKS; UV_CONSTRAINT names
a file of constraints, such as a CPU build of torch). A result replaces that of the same versions and Python
in the JSON. Exit status 1 if a test failed.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
REQUIREMENTS = ("requirements.txt", "requirements-test.txt")
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}  # uv's words


def normalize(name: str) -> str:
    """Writes the name of a package as all its spellings are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def direct_requirements() -> list[str]:
    """Lists the packages that the requirements name."""
    lines = [line for name in REQUIREMENTS for line in (REPOSITORY / name).read_text().splitlines()]
    return [normalize(match[0]) for line in lines if (match := re.match(r"[\w.-]+", line))]


def execute(*words: object) -> str:
    """Runs a command and returns what it printed; its errors are shown."""
    return subprocess.run(list(map(str, words)), check=True, stdout=subprocess.PIPE, text=True).stdout


def install(uv: Path, folder: Path, python: str, versions: str) -> Path:
    """Makes an environment and returns its Python."""
    execute(uv, "venv", "--quiet", "--no-python-downloads", "--python", python, folder)
    requirements = [word for name in REQUIREMENTS for word in ("-r", REPOSITORY / name)]
    resolution = ("--resolution", RESOLUTIONS[versions])
    execute(uv, "pip", "install", "--quiet", "--python", folder, *resolution, *requirements)
    return folder / "bin" / "python"


def run_tests(python: Path, tests: list[str], workers: int) -> dict[str, object]:
    """Runs the tests and counts how they ended."""
    report = python.parent / "tests.xml"
    words = [python, "-m", "pytest", "-q", "-n", workers, "-p", "no:cacheprovider", f"--junitxml={report}"]
    start = time.monotonic()
    status = subprocess.run([*map(str, words), *tests], cwd=REPOSITORY, stdout=sys.stderr).returncode
    minutes = (time.monotonic() - start) / 60
    if status not in (0, 1):  # 1: some failed
        raise SystemExit(f"dependencies.py: expected pytest to run the tests, got its status {status}")
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    return {
        "tests": tests or "all",
        "passed": len(cases) - len(failed) - len(skipped),
        "skipped": len(skipped),
        "failed": [f"{case.get('classname')}::{case.get('name')}" for case in failed],
        "minutes": round(minutes, 1),
    }


def try_out(uv: Path, python: str, versions: str, tests: list[str], workers: int) -> dict[str, object]:
    """Installs, runs the tests, and returns what was there and how they ended."""
    with tempfile.TemporaryDirectory() as folder:
        inside = install(uv, Path(folder) / "environment", python, versions)
        installed = {
            normalize(package["name"]): package["version"]
            for package in json.loads(execute(uv, "pip", "list", "--python", inside, "--format=json"))
        }
        return {
            "versions": versions,
            "python": execute(inside, "-c", "import platform; print(platform.python_version())").strip(),
            **run_tests(inside, tests, workers),
            "packages": {name: installed[name] for name in direct_requirements()},
        }


def record(out: Path, result: dict[str, object]) -> None:
    """Writes a result into the JSON, in the place of the one of the same versions and Python."""
    runs = json.loads(out.read_text())["runs"] if out.exists() else []
    kept = [run for run in runs if place(run) != place(result)]
    content = {
        "machine": f"{platform.system()} {platform.machine()}",
        "runs": sorted([*kept, result], key=place),
    }
    out.write_text(json.dumps(content, indent=1) + "\n")


def place(run: dict) -> tuple[list[int], str]:
    """Returns what a run stands for: Python 3.x, and lowest or newest."""
    return [int(number) for number in run["python"].split(".")[:2]], run["versions"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", nargs="+", choices=RESOLUTIONS, default=list(RESOLUTIONS))
    parser.add_argument("--pythons", nargs="+", default=[sys.executable], help="names or paths")
    parser.add_argument("--tests", nargs="+", default=[], help="default: all")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results/trials/dependencies.json")
    options = parser.parse_args()

    failed = False
    with tempfile.TemporaryDirectory() as tools:
        execute(sys.executable, "-m", "venv", tools)
        execute(f"{tools}/bin/python", "-m", "pip", "install", "--quiet", "uv")
        for python in options.pythons:
            for versions in options.versions:
                result = try_out(Path(tools) / "bin/uv", python, versions, options.tests, options.workers)
                record(options.out, result)
                failed |= bool(result["failed"])
                counts = f"{result['passed']} passed, {len(result['failed'])} failed"
                print(f"{versions}, Python {result['python']}: {counts} in {result['minutes']} minutes")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
