"""The configuration of a claim about the encoders of a study, or of a comparison."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from salt_plugin.config.application import absolute
from salt_plugin.config.suggest import require_known
from salt_plugin.config.values import STRICT, Part
from salt_plugin.errors import ConfigError
from salt_plugin.report.paired import ENDPOINT
from salt_plugin.report.statements import parsed


@dataclass(config=STRICT)
class ClaimArm:
    """Encoders that are alike but for their seeds.

    Attributes:
        probes: Stages; the mean of their accuracies is what an encoder is worth. None where the
            claim has `rows`.
        where: Values that choose among the encoders: of keys in sweeps, e.g. `{teacher.seed: 1}`,
            or in columns of `rows`.
    """

    probes: list[str] = field(default_factory=list)
    where: dict[str, Any] = field(default_factory=dict)


@dataclass(config=STRICT)
class ClaimConfig:
    """A claim, as the statements that make it up.

    Attributes:
        says: In words.
        arms: By name.
        statements: `A > B`; `A >= B`: above, or below by less than `margin`; `A = B`: closer than
            `margin`; `loss of STAGE predicts A`, or `does not predict`. All have to hold.
        protocol: The accuracy that counts.
        margin: The largest difference in accuracy that is of no account.
        rows: `results.csv` of a comparison with an `endpoint`, which is then what an encoder is
            worth, in place of probes.
    """

    says: str
    arms: dict[str, ClaimArm]
    statements: list[str]
    protocol: str = "linear"
    margin: Part = 0.05
    rows: Annotated[str, AfterValidator(absolute)] | None = None

    def losses(self) -> list[str]:
        """Returns the stages whose losses statements are about."""
        parts = map(parsed, self.statements)
        return list(dict.fromkeys(one["stage"] for one in parts if "stage" in one))

    def check(self, key: str, stages: Iterable[str]) -> None:
        """Checks that arms and statements name what there is.

        Args:
            key: Of the claim, for messages.
            stages: All that there are.

        Raises:
            ConfigError: They do not.
        """
        stages = list(stages)
        if self.rows is not None:
            _check_rows(f"{key}.rows: {self.rows}", Path(self.rows))
        for name, arm in self.arms.items():
            if bool(arm.probes) == (self.rows is not None):
                raise ConfigError(
                    f"{key}.arms.{name}.probes={arm.probes}: expected stages, or {key}.rows and "
                    "none"
                )
            for stage in arm.probes:
                require_known(stage, stages, f"{key}.arms.{name}.probes: no stage {stage!r}")
        for statement in self.statements:
            found = parsed(statement)
            if not found:
                raise ConfigError(
                    f"{key}.statements: {statement!r}: expected A > B, A >= B, A = B, loss of "
                    "STAGE predicts A, or loss of STAGE does not predict A"
                )
            for part, known in (("one", self.arms), ("other", self.arms), ("stage", stages)):
                if part in found:
                    mistake = f"{key}.statements: {statement!r}: there is no {found[part]!r}"
                    require_known(found[part], known, mistake)


def _check_rows(told: str, file: Path) -> None:
    if not file.is_file():
        raise ConfigError(f"{told}: no such file; expected results.csv of salt compare")
    with file.open(newline="") as opened:
        columns = next(csv.reader(opened), [])
    for name in (ENDPOINT, "whole"):
        if name not in columns:
            raise ConfigError(
                f"{told}: no column {name!r}; expected results.csv of a comparison with the "
                f"key {ENDPOINT}, as this version writes it"
            )
