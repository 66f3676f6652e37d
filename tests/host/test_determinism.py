"""The request for deterministic GPU kernels adds one flag and keeps those that are there."""

from types import SimpleNamespace

from decloss_jax.host import determinism


def test_request_adds_the_flag_once_and_only_when_asked(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    determinism.request(SimpleNamespace(deterministic=False))
    assert "deterministic" not in determinism.os.environ["XLA_FLAGS"]
    for _ in range(2):
        determinism.request(SimpleNamespace(deterministic=True))
    flags = determinism.os.environ["XLA_FLAGS"].split()
    assert flags == ["--xla_force_host_platform_device_count=2", determinism.FLAG]
