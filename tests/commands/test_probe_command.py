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
    assert {path.name for path in folder.glob("*.png")} == {f"{name}.png" for name in names}
    assert all(path.stat().st_size > 5000 for path in folder.glob("*.png"))
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert best in found
    assert json.loads((folder / "probe.json").read_text()) == {"reports": [found]}


def test_several_encoders_make_one_table(
    demo: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoders = ["random:vit_nano", "random:vit_tiny"]
    given = [*encoders, *demo, "--protocol=knn", "--keep=time", f"--out={tmp_path}"]
    main(given)
    table = capsys.readouterr().out
    main([*given, "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["encoder"] for one in found] == encoders
    assert json.loads((tmp_path / "probe.json").read_text()) == {"reports": found}
    assert len(list(tmp_path.glob("[12]/confusion-knn.png"))) == 2
    assert table.count("protocol") == 1
    for one in found:
        assert f"{one['encoder']}, random weights" in table
        assert f"{one['knn']['accuracy']:.3f}" in table
        assert f"dimension {one['knn']['best']['dimension']}, on train" in " ".join(table.split())


def test_all_encoders_are_opened_before_the_first_is_probed(
    demo: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="vit_nono"):
        main(["random:vit_nano", "random:vit_nono", *demo, f"--cache={tmp_path / 'new'}"])
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_found_first(demo: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/figures cannot be written to"):
        main(["nowhere", *demo, "--figures", str(tmp_path / "file" / "figures")])
