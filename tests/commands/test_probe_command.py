"""`salt probe`, from the command line on, on the demo set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from salt_plugin.commands.probe import main
from salt_plugin.data import DemoSpec, make_demo
from salt_plugin.errors import ConfigError

CLIP = ["--frames", "8", "--size", "32", "--step", "1", "--workers", "0"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("demo")
    folder = make_demo(DemoSpec(train=40, test=20), root)
    lists = [f"--{name}={folder / name}_direction.csv" for name in ("train", "test")]
    return [*lists, *CLIP, "--cache", str(root / "features")]


@pytest.mark.parametrize(
    ("encoder", "protocol", "figures"),
    [
        ("random:vit_nano", "all", "attentive attention pca"),
        ("timm:vit_tiny_patch16_224", "attentive", "attentive attention pca"),
        ("random:vit_nano", "linear", "linear"),
        ("random:vit_nano", "knn", "knn"),
    ],
)
def test_figures_of_the_best_protocol(
    demo: list[str],
    tmp_path: Path,
    encoder: str,
    protocol: str,
    figures: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "new" / "figures"
    settings = ["--grid", "fast", "--epochs", "1", "--views", "2x1", "--json"]
    main([encoder, *demo, *settings, "--protocol", protocol, "--figures", str(folder)])
    best, *others = figures.split()
    names = {f"confusion-{best}", f"class-accuracy-{best}", *others}
    assert {path.name for path in folder.iterdir()} == {f"{name}.png" for name in names}
    assert all(path.stat().st_size > 5000 for path in folder.iterdir())
    assert best in json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_folder_that_cannot_be_made_is_found_first(demo: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/figures cannot be written to"):
        main(["nowhere", *demo, "--figures", str(tmp_path / "file" / "figures")])
