"""The benchmark for machines with GPUs runs to its end on a CPU, in small."""

import json
import subprocess
import sys

from command_line import REPOSITORY


def test_gpu_benchmark_runs_on_a_cpu(tmp_path):
    command = [
        "benchmarks/gpu.py",
        "--tiny",
        "--only",
        "loss",
        "validation",
        "--out",
        str(tmp_path / "gpu.json"),
    ]
    done = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    reference = parts["loss_reference paper"]["loss"]
    for form in (*parts["loss_jax paper"].values(), *parts["loss_torch paper"].values()):
        assert abs(form["loss"] / reference - 1) < 1e-6
        assert form["gradient_error"] < 2e-5
    assert parts["validation"]["milliseconds_per_picture"] > 0
    assert "| loss, torch.compile over ours, TF32 | " in done.stdout
