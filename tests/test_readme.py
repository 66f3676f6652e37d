"""What the README tells a reader to do."""

import re
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("results/**/*.md")])


def test_readme_python_runs():
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["gradient"].shape == names["sr"].shape
    assert np.isfinite(names["loss"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_of_pages_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_readme_names_files_that_exist():
    text = (REPOSITORY / "README.md").read_text()
    names = re.findall(r"`((?:decloss_jax|configs|docs|results|benchmarks)/[\w./]*)`", text)
    assert len(names) > 10
    assert not [name for name in names if not (REPOSITORY / name).exists()]
