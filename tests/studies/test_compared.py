"""The report of a study whose runs have budgets, on runs that were written by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from salt_plugin.studies import report
from salt_plugin.studies.elements import Element, all_elements
from salt_plugin.studies.pipeline import pipeline_config
from salt_plugin.studies.report import PARTS
from salt_plugin.studies.study import Study

PIPELINE = """\
name: small
overrides: [method.encoder=vit_nano]
stages:
  train:
    sweep: ["method=salt,vjepa2", "compute.budget=1e14", "seed=1,2"%s]
  probe: {command: probe, needs: train, overrides: ["{train}", --json]}
  report: {command: report, after: [train, probe]}
"""
ACCURACY = {"salt-budget1e14-s1": 0.25, "salt-budget1e14-s2": 0.75}


def study_of(folder: Path, more: str) -> Study:
    file = folder / "small.yaml"
    file.write_text(PIPELINE % more)
    config = pipeline_config(str(file))
    study = Study(folder / "study")
    elements = all_elements(config, study.root)
    study.root.mkdir()
    content = {"pipeline": asdict(config), "elements": [one._asdict() for one in elements]}
    study.file.write_text(json.dumps(content))
    for one in elements:
        root = study.root / one.id
        root.mkdir(parents=True)
        (root / "finished.json").write_text("{}")
        if one.stage == "probe":
            accuracy = ACCURACY.get(one.name, 0.5)
            (root / "output.txt").write_text(json.dumps({"knn": {"accuracy": accuracy}}))
        elif one.stage == "train":
            write_run(root, one)
    return study


def write_run(root: Path, element: Element) -> None:
    values = element.values["train"]
    teacher = {"teacher": {"path": None}} if values["method"] == "salt" else {}
    config: dict[str, Any] = {
        "method": {"name": values["method"], "encoder": "vit_nano", **teacher},
        "compute": {"budget": 1e14, "teacher_share": 0.1},
    }
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    parts = dict.fromkeys(PARTS) | {"student": 9 * 10**13}
    stage = {"stage": "student", "steps": 2, "seconds": 1.0}
    bill = {"convention": "exact", "parts": parts, "total": 9 * 10**13}
    (root / "summary.json").write_text(json.dumps({"bill": bill, "stages": [stage]}))
    (root / "student").mkdir()
    (root / "student" / "metrics.csv").write_text("step,loss,flops\n1,0.5,45\n2,0.25,90\n")


def test_runs_with_budgets_are_compared_as_salt_compare_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, out = study_of(tmp_path, ""), tmp_path / "study/report/all"
    report.main([str(study.root), str(out)])
    assert (out / "compared.md").read_text().splitlines()[2:] == [
        "| salt | vit_nano | 0.1 | 100 TFLOP | 90 TFLOP | 2 | 0.500 ± 0.354 |",
        "| vjepa2 | vit_nano |  | 100 TFLOP | 90 TFLOP | 2 | 0.500 ± 0.000 |",
    ]
    names = ["accuracy", "loss", "allocation"]
    written = [out / "table.md", out / "compared.md"]
    written += [out / "figures" / f"{name}.png" for name in names]
    assert capsys.readouterr().out.split() == [str(path) for path in written]
    assert all(path.is_file() for path in written)


def test_a_sweep_of_another_key_is_not_taken_for_seeds(tmp_path: Path) -> None:
    study, out = study_of(tmp_path, ', "optimizer.lr=1e-3,1e-4"'), tmp_path / "study/report/all"
    report.main([str(study.root), str(out)])
    assert {path.name for path in out.iterdir()} == {"finished.json", "results.csv", "table.md"}
