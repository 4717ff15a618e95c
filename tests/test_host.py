"""Lightly's command with us beside it, and other Hydra applications with us beside them."""

from __future__ import annotations

import importlib
import inspect
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import hydra
import numpy as np
import pytest
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from small_run import TINY

from salt_plugin import cli, host
from salt_plugin.config import compose, load_config
from salt_plugin.config.planning import compose_alone
from salt_plugin.errors import ConfigError
from salt_plugin.train import run

METHODS = ("finetune", "levjepa", "pixel_teacher", "salt", "videomae", "vjepa", "vjepa2")
COMMAND = Path(sys.executable).parent / "lightly-ssl-train"
FOREIGN_APP = """\
import sys

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf


@hydra.main(config_path="conf", config_name="config", version_base=None)
def main(cfg: DictConfig) -> None:
    assert "torch" not in sys.modules
    loader = GlobalHydra.instance().config_loader()
    print("groups:", sorted(loader.list_groups("")))
    hydras_own = {"_dummy_empty_config_"}
    print("configs:", sorted({*loader.get_group_options("")} - hydras_own))
    print("methods:", sorted(loader.get_group_options("method")))
    print(OmegaConf.to_yaml(cfg))


main()
"""


def _run(command: list[str | Path], folder: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "1"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _packaged() -> DictConfig:
    """The host's own YAML, as it was shipped, without what is Hydra's."""
    text = (resources.files("lightly.cli.config") / "config.yaml").read_text()
    packaged = OmegaConf.create(text)
    assert isinstance(packaged, DictConfig)
    del packaged["hydra"]
    return packaged


@pytest.fixture
def train_cli() -> Iterator[ModuleType]:
    """The module of the host's command, put back afterwards as it was found."""
    module = importlib.import_module("lightly.cli.train_cli")
    found = module._train_cli
    module._train_cli = inspect.unwrap(found)
    yield module
    module._train_cli = found


def _search_path(provider: str, path: str) -> ConfigSearchPath:
    search_path = ConfigSearchPathImpl()
    search_path.append(provider, path)
    return search_path


@pytest.mark.slow
def test_without_a_method_the_job_is_the_hosts_own(tmp_path: Path) -> None:
    printed = _run([COMMAND, "--cfg", "job"], tmp_path)
    assert printed.strip() == OmegaConf.to_yaml(_packaged()).strip()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_with_a_method_the_job_has_its_node(tmp_path: Path) -> None:
    printed = _run([COMMAND, "method=salt", "method.encoder=vit_tiny", "--cfg", "job"], tmp_path)
    job = OmegaConf.create(printed)
    assert job.method.name == "salt"
    assert job.method.encoder == "vit_tiny"
    assert job.trainer.max_epochs == -1
    assert "max_steps" in job.trainer
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_simclr_still_trains(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    run = tmp_path / "run"
    printed = _run(
        [
            COMMAND,
            f"input_dir={images}",
            "pre_trained=False",
            "trainer.max_epochs=1",
            "loader.num_workers=0",
            "loader.batch_size=4",
            "collate.input_size=32",
            f"hydra.run.dir={run}",
            "hydra.job.chdir=True",
        ],
        tmp_path,
    )
    assert "Best model is stored at:" in printed
    assert list(run.rglob("*.ckpt"))
    assert not (run / "teacher").exists()
    used = OmegaConf.load(run / ".hydra" / "config.yaml")
    expected = _packaged()
    assert set(used) == set(expected)
    assert used.model == expected.model
    assert used.optimizer == expected.optimizer


def test_private_function_of_the_host_has_the_signature_we_replace() -> None:
    """If this fails, a release of Lightly has moved what `host.join_lightly` hooks into."""
    module = importlib.import_module("lightly.cli.train_cli")
    signature = inspect.signature(inspect.unwrap(module._train_cli))
    assert str(signature) == "(cfg, is_cli_call=True)"
    assert "return _train_cli(cfg)" in inspect.getsource(module)


def test_composing_without_a_method_gives_the_hosts_own_config() -> None:
    assert compose([]) == _packaged()
    changed = compose(["optimizer.lr=0.5", "loader.batch_size=8"])
    expected = _packaged()
    expected.optimizer.lr, expected.loader.batch_size = 0.5, 8
    assert changed == expected


@pytest.mark.parametrize("name", METHODS)
def test_composing_a_method_adds_our_nodes_and_keeps_the_hosts_keys(name: str) -> None:
    job = compose([f"method={name}"])
    assert job.method.name == name
    assert set(job) == {*_packaged(), "method", "compute"}
    untouched = set(_packaged()) - {
        *("input_dir", "checkpoint", "seed", "loader", "trainer", "optimizer")
    }
    assert untouched
    for key in untouched:
        assert job[key] == _packaged()[key]
    for group in ("loader", "trainer", "optimizer"):
        assert set(_packaged()[group]) <= set(job[group])


def test_a_job_with_a_method_comes_to_us_and_all_else_goes_to_the_host(
    train_cli: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Any, bool]] = []

    def original(cfg: Any, is_cli_call: bool = True) -> str:
        calls.append(("host", cfg, is_cli_call))
        return "checkpoint of the host"

    monkeypatch.setattr(train_cli, "_train_cli", original)
    monkeypatch.setattr(host, "train_job", lambda cfg: calls.append(("us", cfg, True)))
    for _ in range(2):  # as when two applications start in one process
        host.join_lightly(_search_path("main", host.LIGHTLY_CONFIG))

    own, foreign = compose(["method=salt"]), compose([])
    for name in METHODS:
        train_cli._train_cli({"method": {"name": name}})
    train_cli._train_cli(own)
    assert [who for who, _, _ in calls] == ["us"] * (len(METHODS) + 1)
    calls.clear()

    assert train_cli._train_cli(foreign) == "checkpoint of the host"
    assert train_cli._train_cli({"input_dir": "x"}, is_cli_call=False) == "checkpoint of the host"
    train_cli._train_cli({"method": None})
    assert [who for who, _, _ in calls] == ["host"] * 3
    assert [flag for _, _, flag in calls] == [True, False, True]
    assert calls[0][1] is foreign


def test_a_process_that_a_launcher_of_hydra_starts_joins_lightly_as_well(
    train_cli: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.join_lightly(_search_path("main", host.LIGHTLY_CONFIG))
    sent = pickle.dumps(train_cli._train_cli)
    train_cli._train_cli = inspect.unwrap(train_cli._train_cli)  # as in a process that starts
    monkeypatch.setattr(host, "train_job", lambda cfg: ran.append(cfg))
    ran: list[Any] = []
    received = pickle.loads(sent)
    received(job := OmegaConf.create({"method": {"name": "salt"}}))
    assert ran == [job]
    assert received is train_cli._train_cli


def test_hydra_finds_the_plugin() -> None:
    plugins = {plugin.__name__ for plugin in Plugins.instance().discover(SearchPathPlugin)}
    assert "SaltSearchPath" in plugins


@pytest.mark.parametrize("path", ["pkg://lightly.cli/config", "pkg://lightly.cli.config"])
def test_the_host_is_known_by_either_spelling(path: str) -> None:
    assert host.is_lightly(_search_path("main", path))
    assert not host.is_lightly(_search_path("somebody", path))


@pytest.fixture(scope="module")
def foreign_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "conf").mkdir()
    (folder / "conf" / "config.yaml").write_text("answer: 42\ninput_dir: videos\n")
    (folder / "app.py").write_text(FOREIGN_APP)
    return folder


def test_foreign_app_starts_and_gains_our_groups_only(foreign_app: Path) -> None:
    printed = _run([sys.executable, "app.py", "hydra.run.dir=plain"], foreign_app).splitlines()
    assert printed[0] == "groups: ['compare', 'hydra', 'method', 'preset', 'probe']"
    assert printed[1] == "configs: ['config']"
    assert printed[2] == f"methods: {list(METHODS)}"
    assert OmegaConf.create("\n".join(printed[3:])) == {"answer": 42, "input_dir": "videos"}


def test_foreign_app_can_compose_our_method(foreign_app: Path) -> None:
    printed = _run(
        [sys.executable, "app.py", "+method=salt", "hydra.run.dir=ours"], foreign_app
    ).splitlines()
    config = OmegaConf.create("\n".join(printed[3:]))
    assert config.answer == 42
    assert config.method.name == "salt"
    assert config.method.masks._target_ == "salt_plugin.masks.MultiBlockMasks"


def test_foreign_app_can_compose_a_preset_after_our_method(foreign_app: Path) -> None:
    command = [sys.executable, "app.py", "+method=salt", "+preset=demo", "hydra.run.dir=demo"]
    config = OmegaConf.create("\n".join(_run(command, foreign_app).splitlines()[3:]))
    assert config.answer == 42
    assert config.input_dir == "demo:train.csv"
    assert (config.method.encoder, config.method.teacher.max_steps) == ("vit_nano", 1000)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Starts an application in this process, as its script would with these arguments."""
    monkeypatch.chdir(tmp_path)
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]

    def started(entry: Callable[[], Any], script: str, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [script, *arguments, *quiet])
        entry()

    return started


@pytest.mark.parametrize("method", [[], ["method=vjepa"]])
def test_both_commands_compose_the_same_job(
    method: list[str],
    train_cli: ModuleType,
    start: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "small.yaml").write_text(
        "# @package _global_\nloader:\n  batch_size: 3\nmethod:\n  encoder: vit_tiny\n"
    )
    jobs: list[DictConfig] = []
    monkeypatch.setattr(host, "train_job", jobs.append)
    arguments = ["--config-dir", ".", "+experiment=small", "input_dir=VIDEOS", "optimizer.lr=1e-3"]
    start(cli.main, "salt", "train", *arguments[:2], *method, *arguments[2:])
    start(train_cli.entry, "lightly-ssl-train", *arguments, *(method or ["method=salt"]))
    ours, lightlys = jobs
    assert ours == lightlys
    assert (ours.loader.batch_size, ours.method.encoder) == (3, "vit_tiny")


def test_lightlys_command_shows_how_to_quote_a_path(
    train_cli: ModuleType, start: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        start(train_cli.entry, "bin/lightly-ssl-train", "method=salt", "input_dir=/my videos (1)")
    assert capsys.readouterr().err.endswith("""quote it: 'input_dir="/my videos (1)"'\n""")


@pytest.mark.parametrize("group", ["method", "preset"])
def test_a_misspelt_method_or_preset_is_named_in_lightlys_command_and_in_ours(
    group: str,
    train_cli: ModuleType,
    start: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    wrong, right = {"method": ("slat", "salt"), "preset": ("dmeo", "demo")}[group]
    for entry, script in (
        (cli.main, ["salt", "train"]),
        (train_cli.entry, ["bin/lightly-ssl-train"]),
    ):
        with pytest.raises(SystemExit):
            start(entry, *script, f"{group}={wrong}")
        line = capsys.readouterr().err
        assert line == f"error: {group}={wrong}: no such {group}; did you mean {right!r}?\n"
    assert not list(tmp_path.iterdir())


def test_a_preset_alone_is_nothing_that_lightly_could_train(
    train_cli: ModuleType, start: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        start(train_cli.entry, "bin/lightly-ssl-train", "preset=demo", "hydra.run.dir=run")
    assert "error: method.name is missing" in capsys.readouterr().err


def test_a_misspelt_key_is_an_error_in_lightlys_command_and_in_ours(
    train_cli: ModuleType, start: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    for entry, script in ((cli.main, ["salt", "train"]), (train_cli.entry, ["lightly-ssl-train"])):
        with pytest.raises(SystemExit):
            start(entry, *script, "method=salt", "+trianer.max_steps=1", "hydra.run.dir=run")
        line = capsys.readouterr().err.splitlines()[-1]
        assert line == "error: trianer: unknown key; did you mean 'trainer'?"


def test_a_foreign_app_with_keys_of_its_own_trains(
    start: Callable[..., None],
    tiny_videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("answer: 42\nteam: {lead: me}\nmodel: mine\n")
    found: list[dict[str, Any]] = []

    @hydra.main(config_path=str(tmp_path / "conf"), config_name="config", version_base=None)
    def app(cfg: DictConfig) -> None:
        assert cfg.answer == 42
        found.append(run(cfg, tmp_path / "run"))

    one_step = ["+method=pixel_teacher", "trainer.max_steps=1", "input_dir=videos", *TINY]
    (tmp_path / "videos").symlink_to(tiny_videos)
    start(app, "app", *one_step, "hydra.run.dir=out", "hydra.job.chdir=True")
    assert [stage["steps"] for stage in found[0]["stages"]] == [1]
    assert (tmp_path / "run" / "teacher" / "encoder.safetensors").is_file()
    with pytest.raises(SystemExit):
        start(app, "app", *one_step, "+method.encodr=vit_tiny", "hydra.run.dir=out")
    assert "ConfigError: method.encodr: unknown key" in capsys.readouterr().err


def test_outside_of_applications_a_config_with_all_of_lightlys_keys_is_lightlys() -> None:
    foreign = compose_alone(["method=salt", "+answer=42"])
    assert load_config(foreign).method.name == "salt"
    with pytest.raises(ConfigError, match=r"^answer: unknown key"):
        load_config(foreign, foreign=False)
    with pytest.raises(ConfigError, match=r"^answer: unknown key"):
        load_config(compose(["method=salt", "+answer=42"]))


def test_app_whose_main_config_only_resembles_the_hosts_is_left_alone() -> None:
    (plugin,) = [
        plugin
        for plugin in Plugins.instance().discover(SearchPathPlugin)
        if plugin.__name__ == "SaltSearchPath"
    ]
    search_path = _search_path("main", "file:///home/me/lightly/cli/config")
    plugin().manipulate_search_path(search_path)
    entries = [(entry.provider, entry.path) for entry in search_path.get_path()]
    assert entries[0] == ("main", "file:///home/me/lightly/cli/config")
    assert [path for provider, path in entries if provider == "salt_plugin"] == [host.config_path()]
