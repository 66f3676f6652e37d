"""The chain of RankSRGAN in Table 3: three networks, the Ranker, and the row; what each is trained on."""

import pytest

from decloss_jax.reproduction import driver, runs
from decloss_jax.reproduction.paper import EXPERIMENTS
from decloss_jax.reproduction.runs import Settings, row_config, train_row

ROWS = {row.name: row for row in EXPERIMENTS["table3"].rows}


@pytest.fixture
def trained(monkeypatch):
    """Replaces training: lists the (config, workdir) of each run, which ends with one checkpoint."""
    runs_done: list = []

    def run(config, workdir):
        runs_done.append((config, workdir))
        for stage in ("pretrain", "finetune"):
            if config[stage].steps:
                folder = workdir / "checkpoints" / stage / str(config[stage].steps)
                folder.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(runs.loop, "run", run)
    return runs_done


@pytest.fixture
def settings(tmp_path):
    overrides = {"data.cache_dir": "cache", "data.crop_size": 64, "ranker.sharpness": 9.0}
    return Settings("mini", overrides, tmp_path / "runs", ["photographs"])


def test_ranksrgan_trains_its_networks_then_its_ranker_then_itself(trained, settings):
    workdir, config, _ = train_row(ROWS["RankSRGAN"], 3, settings)
    names = [folder.name.rpartition("-")[0] for folder in dict.fromkeys(folder for _, folder in trained)]
    assert names == [
        "srresnet-stage1-seed3",
        "srresnet-gan-l1-perceptual-seed3",
        "rrdb-stage1-seed3",
        "rrdb-l1-perceptual-ragan-seed3",
        "ranker-seed3",
        "srresnet-gan-perceptual-rank_content-seed3",
    ]
    folders = list(dict.fromkeys(folder for _, folder in trained))
    ranker = next(each for each, folder in trained if folder == folders[4])
    assert ranker.ranker.networks == ",".join(str(folders[i]) for i in (0, 1, 3))
    assert trained[-1] == (config, workdir)
    assert config.ranker.weights_file == str(folders[4])
    assert {each.seed for each, _ in trained} == {3}


def test_the_networks_are_those_of_other_rows(trained, settings):
    esrgan, _, _ = train_row(ROWS["ESRGAN"], 0, settings)
    of_esrgan = len(trained)
    train_row(ROWS["RankSRGAN"], 0, settings)
    assert esrgan in [folder for _, folder in trained[of_esrgan:]]


def test_the_name_of_the_run_tells_its_networks_apart(trained, settings, monkeypatch):
    names = [train_row(ROWS["RankSRGAN"], 0, settings)[0].name]
    shrink = runs.import_config("mini").shrink

    def longer(config):
        config = shrink(config)
        config.pretrain.steps += 10 * (config.model.name == "rrdb")
        return config

    monkeypatch.setattr(runs.import_config("mini"), "shrink", longer)
    names.append(train_row(ROWS["RankSRGAN"], 0, settings)[0].name)
    assert names[0] != names[1]


def test_set_reaches_the_rankers_data_and_rules_only(settings):
    config = row_config(runs.RANKER_ROW, 0, settings)
    assert (config.data.cache_dir, config.ranker.sharpness, config.data.crop_size) == ("cache", 9.0, 296)
    assert row_config(runs.SRGAN, 0, settings).data.crop_size == 64


def test_a_given_ranker_is_not_trained(trained, settings, tmp_path):
    given = Settings("mini", {"ranker.weights_file": "ranker.pth"}, tmp_path, ["photographs"])
    _, config, _ = train_row(ROWS["RankSRGAN"], 0, given)
    assert config.ranker.weights_file == "ranker.pth"
    assert [folder.name.split("-")[1] for _, folder in trained] == ["stage1", "gan"]


def test_everything_that_ranksrgan_needs_is_checked_at_the_start(settings, monkeypatch):
    planned = []
    monkeypatch.setattr(driver.loop, "make_plan", planned.append)
    driver.check_settings([ROWS["RankSRGAN"]], [0], settings)
    assert [config.model.name for config in planned] == ["srresnet", "rrdb", "ranker", "srresnet"]
