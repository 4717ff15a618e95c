"""YAML of strangers: plain values or one error, no object, no environment, no class of theirs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from salt_plugin.config import build, probe_config, read_yaml
from salt_plugin.config.compare import compare_config
from salt_plugin.errors import ConfigError
from salt_plugin.losses import LatentLoss
from salt_plugin.run_directory import RunDirectory, read_metrics
from salt_plugin.studies.cluster import cluster_config
from salt_plugin.studies.pipeline import pipeline_config

SETTINGS = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
RUN: dict[str, Any] = {
    "input_dir": "",
    "method": {"name": "salt", "masks": {"_target_": "salt_plugin.masks.TubeMasks"}},
}


def stored(folder: Path, **changes: Any) -> RunDirectory:
    config = OmegaConf.create({**RUN, "method": {**RUN["method"], **changes}})
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    return RunDirectory(folder)


def test_classes_of_a_stored_run_are_ours_or_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stored(tmp_path).stored_config()["method"]["name"] == "salt"
    (tmp_path / "theirs.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for target in ("theirs.Loss", "os.system", "salt_plugins.x", "", 7):
        for node in ({"_target_": target}, {"beta": [{"x": {"_target_": target}}]}):
            with pytest.raises(ConfigError, match=r"config\.yaml: method\.loss.*_target_="):
                stored(tmp_path, loss=node).stored_config()
    assert "theirs" not in sys.modules
    monkeypatch.setenv("SALT_TRUSTED_PACKAGES", "mine,theirs")
    stored(tmp_path, loss={"_target_": "theirs.Loss"}).stored_config()
    assert "theirs" not in sys.modules


def test_arguments_of_a_node_name_no_classes(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    harm = {"_target_": "os.mkdir", "path": str(trace)}
    for kind in (harm, [harm], {"a": {"b": harm}}):
        node = {"_target_": "salt_plugin.losses.LatentLoss", "kind": kind}
        with pytest.raises(ConfigError, match=r"method\.loss\.kind.*_target_: only method\.loss"):
            build(node, "method.loss", LatentLoss)
    assert not trace.exists()


@pytest.mark.parametrize(
    "text",
    [
        "annotations: ${oc.env:SECRET}",
        "annotations: ${oc.env:SECRET,none}",
        "protocols: ['${oc.env:SECRET}']",
        "annotations: a${frames}",
    ],
)
def test_the_environment_is_not_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SECRET", "hidden")
    (tmp_path / "probe.yaml").write_text(text)
    for read in (probe_config, compare_config):
        with pytest.raises(ConfigError, match=r"probe\.yaml: .*\$\{.*Write the value") as caught:
            read(str(tmp_path / "probe.yaml"))
        assert "hidden" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"method\.encoder is '\$\{oc\.env:SECRET\}'"):
        stored(tmp_path, encoder="${oc.env:SECRET}").stored_config()


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.mkdir ['{}']",
        "a: !!python/name:os.system",
        "a: !!python/module:antigravity",
        "a: &x [1, 1]\n" + "".join(f"b{n}: &x{n} [*x, *x]\n" for n in range(20)),
        "[" * 500,
        "[" * 500 + "]" * 500,
        "a: " + "9" * 5000,
        "a: !!binary x",
        "? [1]\n: 2",
        "a: *b",
        "\0",
        "- 1",
    ],
)
def test_yaml_is_data_or_refused(tmp_path: Path, text: str) -> None:
    trace = tmp_path / "trace"
    (tmp_path / "file.yaml").write_text(text.replace("{}", str(trace)))
    for read in (read_yaml, lambda file: probe_config(str(file))):
        with pytest.raises(ConfigError) as caught:
            read(tmp_path / "file.yaml")
        assert len(str(caught.value)) < 1500
    assert not trace.exists()


@SETTINGS
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_as_a_configuration(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.yaml").write_bytes(content)
    _read_or_refused(tmp_path)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner)),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["train", "frames", "protocols", "methods", "probe", "kind", "setup", "stages", "sweep", "name"]
)


@SETTINGS
@example(values={"protocols": [[]]})
@given(values=st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_values_in_a_configuration(tmp_path: Path, values: dict[str, Any]) -> None:
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    _read_or_refused(tmp_path)


def _read_or_refused(folder: Path) -> None:
    file = str(folder / "file.yaml")
    for read in (
        probe_config,
        compare_config,
        lambda name: cluster_config(name, {}),
        lambda name: pipeline_config(name, {}),
    ):
        message = ""
        try:
            read(file)
        except ConfigError as error:
            message = str(error)
        assert "Traceback" not in message
        assert len(message) < 4000


@pytest.mark.parametrize("text", ["step,loss\n1,x\n", "step,loss\nx,1\n", "\xff,\0\n1,2,3\n"])
def test_metrics_that_are_no_numbers(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ConfigError, match=r"metrics\.csv holds other rows than numbers"):
        read_metrics(tmp_path / "metrics.csv")
