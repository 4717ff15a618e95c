"""Where there is no home directory, or none that can be written to, one line says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from namespaces import read_only, salt_in_namespace

from salt_plugin.data.demo import DemoSpec, make_demo
from salt_plugin.errors import CacheError
from salt_plugin.files import user_cache


def commands(videos: Path, folder: Path) -> list[list[str]]:
    lists = ["--train", str(videos), "--test", str(videos), "--protocol", "knn"]
    clip = ["--frames", "4", "--size", "32", "--step", "1", "--workers", "0"]
    probe = ["probe", "random:vit_nano", *lists, *clip]
    return [
        ["train", "preset=demo", f"hydra.run.dir={folder / 'run'}"],
        ["probe", "random:vit_nano", "--data", "demo"],
        probe,
        [*probe, "--cache", str(folder / "cache")],
    ]


@pytest.mark.slow
@pytest.mark.parametrize("missing", [True, False])
def test_a_command_that_needs_a_cache_ends_in_one_line(
    tiny_videos: Path, tmp_path: Path, missing: bool
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    given = commands(tiny_videos, tmp_path)
    if missing:  # as for a user that a container was started as, and does not know
        ended = salt_in_namespace(
            given, user=54321, environment={"HOME": None, "XDG_CACHE_HOME": None}
        )
        found = "no folder for the cache (Could not determine home directory.)"
    else:
        ended = salt_in_namespace(
            given, read_only(home), environment={"HOME": str(home), "XDG_CACHE_HOME": None}
        )
        found = f"{home}/.cache/salt_plugin cannot be written to (Read-only file system)"
    *refused, cached = ended
    for one in refused:
        assert one.status == 1
        assert "Traceback" not in one.errors
        (line,) = (line for line in one.errors.splitlines() if line.startswith("error: "))
        assert found in line
        assert "XDG_CACHE_HOME" in line
    assert "--cache DIR" in refused[-1].errors
    assert cached.status == 0, cached.errors


def test_the_cache_is_made_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new" / "cache"))
    assert user_cache() == tmp_path / "new" / "cache" / "salt_plugin"
    assert user_cache().is_dir()


def test_a_set_that_is_there_needs_no_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec = DemoSpec(train=1, test=1)
    made = make_demo(spec)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("salt_plugin.data.demo.tempfile.TemporaryDirectory", refuse)
    assert make_demo(spec) == made
    with pytest.raises(CacheError, match=r"cannot be written to \(Permission denied\)"):
        make_demo(DemoSpec(train=2, test=1))
