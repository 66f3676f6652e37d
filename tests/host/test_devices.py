import pytest

from decloss_jax.host import devices


@pytest.mark.parametrize(
    ("has_gpu", "platforms", "warned"),
    [(True, None, True), (True, "cuda,cpu", False), (True, "cpu", False), (False, None, False)],
)
def test_say_devices_warns_of_a_gpu_that_nobody_left_idle_on_purpose(
    tmp_path, monkeypatch, capsys, has_gpu, platforms, warned
):
    monkeypatch.setattr(devices, "NVIDIA_DEVICE", tmp_path if has_gpu else tmp_path / "nothing")
    monkeypatch.delenv("JAX_PLATFORMS")
    if platforms is not None:
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
    devices.say_devices("training")
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "training on 8 x cpu"
    assert len(others) == warned
    for word in ("jax[cuda13]", "driver 580", "jax[cuda12]", "525") if warned else ():
        assert word in others[0]


def test_make_deterministic_adds_one_flag_and_keeps_the_others(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    for _ in range(2):
        devices.make_deterministic()
    flags = devices.os.environ["XLA_FLAGS"].split()
    assert flags == ["--xla_force_host_platform_device_count=2", devices.DETERMINISTIC]
