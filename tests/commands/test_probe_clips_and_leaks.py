"""`salt probe`: which clips an encoder sees, and which videos the lists share."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from salt_plugin.checkpoints import save_encoder
from salt_plugin.commands.probe import main
from salt_plugin.config import probe_config_for
from salt_plugin.errors import CheckpointError, ConfigError
from salt_plugin.models import EncoderShape, VideoEncoder

CARD = {"frames": 4, "size": 32, "step": 2, "fps": None, "mean": [0.5] * 3, "std": [0.2] * 3}
CLEAN = {"test_in_train": 0, "val_in_train": 0, "test_in_val": 0, "two_labels": 0}
NANO = "random:vit_nano"
SMALL = ["--frames=2", "--size=32"]


@pytest.fixture
def lists(tiny_videos: Path, tmp_path: Path) -> Path:
    """A folder with `train.csv` and `test.csv` of two classes, which share no video."""
    shutil.copytree(tiny_videos, tmp_path / "videos")
    rows = [f"videos/{name}/{n}.mp4 {at}\n" for n in range(3) for at, name in enumerate("ab")]
    rows = [row.replace("/a/", "/ant/").replace("/b/", "/bee/") for row in rows]
    (tmp_path / "train.csv").write_text("".join(rows[:4]))
    (tmp_path / "test.csv").write_text("".join(rows[4:]))
    return tmp_path


def encoder_file(folder: Path, **clip: Any) -> str:
    torch.manual_seed(0)
    encoder = VideoEncoder(EncoderShape.named("vit_nano", patch_size=8))
    file = folder / "student" / "encoder.safetensors"
    save_encoder(encoder, file, {"input": CARD | clip})
    return str(file)


def arguments(lists: Path, *given: str) -> list[str]:
    """Returns what follows ENCODER; the k-NN protocol is the quickest."""
    named = [f"--{name}={lists / name}.csv" for name in ("train", "test")]
    return [*named, "--protocol=knn", "--workers=0", f"--cache={lists / 'features'}", *given]


def probe(
    capsys: pytest.CaptureFixture[str], encoder: str, lists: Path, *given: str
) -> dict[str, Any]:
    main([encoder, *arguments(lists, *given, "--json")])
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def table(capsys: pytest.CaptureFixture[str], encoder: str, lists: Path, *given: str) -> str:
    main([encoder, *arguments(lists, *given)])
    return " ".join(capsys.readouterr().out.split())


def test_an_encoder_sees_clips_as_it_was_trained_on(
    lists: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = encoder_file(lists)
    found = probe(capsys, str(lists), lists)
    assert found["clip"] == {"frames": 4, "size": 32, "step": 2, "fps": None}
    assert not found["random_weights"]
    stores = sorted((lists / "features").iterdir())
    stated = ["--frames=4", "--size=32", "--step=2"]
    assert probe(capsys, encoder, lists, *stated) == found | {"encoder": encoder}
    assert sorted((lists / "features").iterdir()) == stores  # the same clips: nothing is computed
    assert "4 frames of 32 x 32 pixels, step 2" in table(capsys, encoder, lists)
    untrained = probe(capsys, f"random:{encoder}", lists)
    assert untrained["clip"] == found["clip"]
    assert untrained["random_weights"]


def test_what_is_stated_goes_before_the_card(
    lists: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = encoder_file(lists, fps=5.0)
    assert probe(capsys, encoder, lists)["clip"] == {
        "frames": 4,
        "size": 32,
        "step": None,
        "fps": 5.0,
    }
    stated = probe(capsys, encoder, lists, "--size=16", "--step=1")["clip"]
    assert stated == {"frames": 4, "size": 16, "step": 1, "fps": None}
    (lists / "mine.yaml").write_text("size: 24\nfps: 3\n")
    of_set = f"--data={lists / 'mine.yaml'}"
    found = probe(capsys, encoder, lists, of_set)["clip"]
    assert found == {"frames": 4, "size": 24, "step": None, "fps": 3.0}
    found = probe(capsys, encoder, lists, of_set, "--frames=2", "--step=3")["clip"]
    assert found == {"frames": 2, "size": 24, "step": 3, "fps": None}


@pytest.mark.parametrize("name", ["k400", "ssv2", "coin", "diving48", "jester", "in1k", "demo"])
def test_the_named_sets_state_their_clips(name: str) -> None:
    other = {"frames": 2, "size": 8, "step": 7, "fps": 3.0}
    assert probe_config_for(other, name, {}) == probe_config_for({}, name, {})


def test_a_clip_that_is_none_is_a_damaged_card(lists: Path) -> None:
    for damaged in ({"step": 0}, {"step": "two"}, {"fps": -1}, {"fps": "fast"}):
        encoder = encoder_file(lists, **damaged)
        with pytest.raises(CheckpointError, match=r"encoder\.safetensors: the clips .* step"):
            main([encoder, *arguments(lists)])


def test_an_image_model_says_whether_its_weights_are_random(
    lists: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), lists / "weights.pth")
    for encoder, is_random in (
        ("timm:test_vit", True),
        (f"timm:test_vit:{lists / 'weights.pth'}", False),
        ("timm:salt_vit_nano", True),
    ):
        found = probe(capsys, encoder, lists, *SMALL)
        assert found["random_weights"] == is_random
        assert found["clip"] == {"frames": 2, "size": 32, "step": 4, "fps": None}
        assert ("random weights" in table(capsys, encoder, lists, *SMALL)) == is_random
    with pytest.raises(ConfigError, match=r"timm:salt_vit_nano:a\.pth: neither a size nor a path"):
        main(["timm:salt_vit_nano:a.pth", *arguments(lists, *SMALL)])


def test_lists_without_a_common_video_are_clean(
    lists: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*videos")
        assert probe(capsys, NANO, lists, *SMALL)["leaks"] == CLEAN
        assert "Warning" not in table(capsys, NANO, lists, *SMALL)


def test_videos_in_two_lists_are_counted_by_their_resolved_paths(
    lists: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (lists / "folder").symlink_to("videos")
    (lists / "alias.mp4").symlink_to(lists / "videos" / "bee" / "1.mp4")
    with (lists / "test.csv").open("a") as file:
        file.write("folder/ant/0.mp4 0\nalias.mp4 1\nvideos/bee/../ant/1.mp4 1\n")
    (lists / "val.csv").write_text("alias.mp4 1\nvideos/ant/2.mp4 0\n")
    val = f"--val={lists / 'val.csv'}"
    with pytest.warns(UserWarning, match="videos") as said:
        found = probe(capsys, NANO, lists, *SMALL, val)
    assert found["leaks"] == {
        "test_in_train": 3,
        "val_in_train": 1,
        "test_in_val": 2,
        "two_labels": 1,
    }
    texts = " ".join(str(one.message) for one in said)
    assert "3 of 5 videos of the list test are in the list train" in texts
    assert "1 of 2 videos of the list val are in the list train" in texts
    assert "2 of 5 videos of the list test are in the list val" in texts
    assert f"videos with two labels: 1; the first is {lists / 'videos/ant/1.mp4'}" in texts
    with pytest.warns(UserWarning, match="in the list train"):
        shown = table(capsys, NANO, lists, *SMALL, val)
    assert "test videos that are in the training list, too: 3" in shown
    assert "videos with two labels: 1" in shown


def test_two_labels_within_one_list_or_two_folders(
    lists: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (lists / "train.csv").open("a") as file:
        file.write("videos/ant/1.mp4 1\nvideos/ant/0.mp4 0\n")
    with pytest.warns(UserWarning, match="videos with two labels: 1"):
        found = probe(capsys, NANO, lists, *SMALL)
    assert found["leaks"] == CLEAN | {"two_labels": 1}
    (lists / "videos" / "bee" / "again.mp4").symlink_to(lists / "videos" / "ant" / "2.mp4")
    folder = f"--train={lists / 'videos'}"
    with pytest.warns(UserWarning, match="videos with two labels: 1"):
        found = probe(capsys, NANO, lists, *SMALL, folder, f"--test={lists / 'videos'}")
    assert found["leaks"] == CLEAN | {"test_in_train": 7, "two_labels": 1}
