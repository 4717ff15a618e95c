"""Differences paired by seed, against intervals worked out by hand, and the best trials."""

from __future__ import annotations

import math
from typing import Any

import pytest

from salt_plugin.report.paired import best_trials, paired, paired_rows, paired_table
from salt_plugin.studies.rows import choose_kinds

# Of Student's t, two-sided at 5 %, from a printed table.
T_1, T_2, T_3 = 12.7062, 4.30265, 3.18245


def test_the_interval_is_students() -> None:
    found = paired([0.1, 0.2, 0.3], margin=0.05)
    half = T_2 * 0.1 / math.sqrt(3)
    assert found.n == 3
    assert found.difference == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-5)
    assert found.verdict == "not separated"


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.10, 0.11, 0.12], "above"),
        ([-0.10, -0.11, -0.12], "below"),
        ([0.001, -0.001, 0.0], "within the margin"),
        ([0.020, 0.021, 0.022], "above, within the margin"),
        ([0.0, 0.0, 0.0], "within the margin"),
        ([0.5, -0.5], "not separated"),
        ([0.5], "not separated"),
    ],
)
def test_the_verdict_is_that_of_the_interval(differences: list[float], verdict: str) -> None:
    assert paired(differences, margin=0.05).verdict == verdict


def row(arm: str, seed: int, endpoint: float | None, share: float | None = None) -> dict[str, Any]:
    key = {"arm": arm, "method": "salt", "kind": None, "encoder": "vit_nano", "budget": 1e13}
    return {
        **key,
        "teacher_share": share,
        "seed": seed,
        "flops": 0 if arm == "random" else 9,
        "chosen": True,
        "whole": True,
        "endpoint": endpoint,
    }


def test_arms_are_paired_with_the_reference_by_seed() -> None:
    rows = [
        row("random", 1, 0.1),
        *(row("salt", seed, 0.5 + seed / 10, share=0.1) for seed in (1, 2, 3, 4)),
        *(row("salt", seed, 0.0, share=0.3) for seed in (1, 2)),
        row("warm", 1, 0.62),
        row("warm", 2, 0.74),
        row("warm", 3, None),  # not done
        row("warm", 4, 0.93),
        {**row("warm", 4, 0.0), "chosen": False},
        {**row("salt", 5, 0.0, share=0.1), "whole": False},
        {**row("warm", 5, 1.0), "whole": False},
        row("cold", 9, 0.5),  # a seed without a pair
    ]
    shared, warm = paired_rows(rows, "salt", margin=0.05)
    assert (shared["arm"], shared["teacher_share"], shared["n"]) == ("salt", 0.3, 2)
    assert (warm["arm"], warm["n"], warm["reference"]) == ("warm", 3, "salt")
    assert warm["difference"] == pytest.approx(0.03)
    half = T_2 * 0.01 / math.sqrt(3)
    assert (warm["low"], warm["high"]) == pytest.approx((0.03 - half, 0.03 + half), abs=1e-6)
    assert warm["verdict"] == "above"
    assert paired_table([warm], 0.05).splitlines()[-1] == (
        "| warm vit_nano | 10 TFLOP | 3 | +0.030 | +0.005 to +0.055 | above |"
    )


def group(arm: str, trial: str, accuracy: float) -> dict[str, Any]:
    key = {"arm": arm, "encoder": "vit_nano", "budget": 1e13, "teacher_share": None, "n": 1}
    return {**key, "trial": trial, "chosen": True, "val_linear": accuracy}


def test_the_best_trial_and_whether_it_lies_at_an_edge() -> None:
    rates = ["1e-3", "2e-3", "4e-3"]
    trials = {
        "salt": [[f"optimizer.lr={rate}", "method.masks.seed=0"] for rate in rates],
        "vjepa": [[f"optimizer.lr={rate}", "method/masks=tube"] for rate in rates],
    }
    groups = [
        group(arm, " ".join(trial), accuracy)
        for arm, accuracies in (("salt", (0.1, 0.3, 0.2)), ("vjepa", (0.1, 0.2, 0.3)))
        for trial, accuracy in zip(trials[arm], accuracies, strict=True)
    ]
    salt, vjepa = best_trials(groups, ["val_linear"], trials)
    assert salt["best"] == {"optimizer.lr": "2e-3"}
    assert (salt["trial"], salt["value"], salt["edges"]) == (" ".join(trials["salt"][1]), 0.3, [])
    assert vjepa["edges"] == ["optimizer.lr=0.004 is the largest tried"]


def test_the_best_value_of_each_key_is_that_at_the_usual_values_of_the_others() -> None:
    given = [(1, 9), (2, 9), (4, 9), (2, 5), (2, 1)]
    trials = {"vjepa2": [[f"lr={lr}", f"start=.{m}", f"end=.{m}"] for lr, m in given]}
    scores = (0.1, 0.3, 0.4, 0.5, 0.2)
    groups = [
        group("vjepa2", " ".join(trial), score)
        for trial, score in zip(trials["vjepa2"], scores, strict=True)
    ]
    (found,) = best_trials(groups, ["val_linear"], trials)
    assert found["trial"] == "lr=2 start=.5 end=.5"
    # Start and end are varied together; .5 is between .1 and .9.
    assert found["best"] == {"lr": "4", "start": ".5", "end": ".5"}
    assert found["edges"] == ["lr=4 is the largest tried"]
    unfinished = best_trials(groups[:2], ["val_linear"], trials)
    assert unfinished[0]["best"] == {"lr": "2"}


def test_a_kind_is_chosen_at_each_budget_and_trial_over_whole_seeds() -> None:
    def of(kind: str, budget: float, value: float, **more: Any) -> dict[str, Any]:
        one = row("vjepa", more.pop("seed", 1), None)
        return {**one, "trial": None, "status": "done", "val": value, **more} | {
            "kind": kind,
            "budget": budget,
        }

    rows = [
        of("ema", 1e12, 0.1), of("online", 1e12, 0.3),
        of("ema", 2e12, 0.5), of("online", 2e12, 0.4),
        of("ema", 1e12, 0.9, seed=2, whole=False), of("online", 1e12, 0.1, seed=2, whole=False),
        of("ema", 1e12, 0.6, trial="lr=1"), of("online", 1e12, 0.2, trial="lr=1"),
    ]  # fmt: skip
    choose_kinds(rows, ["val"])
    assert [one["kind"] for one in rows if one["chosen"]] == ["online", "ema", "online", "ema"]
