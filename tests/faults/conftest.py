"""The uninterrupted run, with which the others are compared."""

import pytest
from small_run import SmallRun


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> SmallRun:
    run = SmallRun(tmp_path_factory.mktemp("undisturbed") / "run")
    run.finish()
    return run
