"""How much of the package one training step goes through; docs/architecture.md lists it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from small_run import TINY

import salt_plugin
from salt_plugin.config import compose
from salt_plugin.train import run
from salt_plugin.training import loop

STEP = torch.optim.AdamW.step.__wrapped__.__code__.co_filename  # type: ignore[attr-defined]
PACKAGE = Path(salt_plugin.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
# Shapes and messages are read where they are used.
APART = {"shapes.py", "errors.py"}


class Watch:
    """Notes the package's files in which a function runs while a step is made."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.active = False
        self.steps = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "return" and code is loop._Timed.__next__.__code__:
            self.active = True
            self.files.add(self._name(code.co_filename))
        elif event == "return" and code.co_filename == STEP and self.active:
            if code.co_name == "step":
                self.active, self.steps = False, self.steps + 1
        elif self.active and event == "call" and code.co_filename.startswith(str(PACKAGE)):
            self.files.add(self._name(code.co_filename))

    def _name(self, file: str) -> str:
        return Path(file).relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_a_step_goes_through_ten_files_which_the_docs_list(
    precision: str, tiny_videos: Path, tmp_path: Path
) -> None:
    watch = Watch()
    given = ["method=salt", f"input_dir={tiny_videos}", *TINY, "trainer.max_steps=2"]
    given += ["method.teacher.max_steps=1", "method.probe=null", f"trainer.precision={precision}"]
    sys.setprofile(watch)
    try:
        run(compose(given), tmp_path)
    finally:
        sys.setprofile(None)
    assert watch.steps == 3
    print(sorted(watch.files))
    (listed,) = re.findall(r"<!-- step -->\n(.*?)<!-- end of step -->", PAGE.read_text(), re.S)
    student = {*re.findall(r"`salt_plugin/([\w/]+\.py)`", listed)}
    assert len(student) <= 10
    # Stage 1 is a step of another method.
    assert watch.files - APART - {"methods/pixel_teacher.py", "losses/pixel.py"} == student
