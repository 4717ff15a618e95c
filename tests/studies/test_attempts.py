"""What the log of an attempt says last, and when attempts are in vain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from salt_plugin.studies.attempts import FAILED, STARTED, ElementDirectory

NESTED = """\
Traceback (most recent call last):
  File "fit.py", line 1, in fit
KeyError: 'first'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "loader.py", line 1, in next
RuntimeError: Caught ValueError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "worker.py", line 1, in loop
ValueError: a frame is missing
"""


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("", ""),
        ("step 1\nKilled\n\n", "Killed"),
        (NESTED, "ValueError: a frame is missing"),
        (
            "[rank3]: Traceback (most recent call last):\n[rank3]:   File 'x'\n"
            "[rank3]: torch.AcceleratorError: CUDA error: device-side assert triggered\n"
            "[rank3]: Compile with `TORCH_USE_CUDA_DSA` to enable assertions.\n",
            "torch.AcceleratorError: CUDA error: device-side assert triggered",
        ),
        (
            "error: input_dir=/nowhere: no such folder\n"
            "resource_tracker.py:301: UserWarning: leaked semaphore objects\n",
            "error: input_dir=/nowhere: no such folder",
        ),
    ],
)
def test_the_last_words_of_an_attempt_are_its_last_error(
    tmp_path: Path, log: str, said: str
) -> None:
    files = ElementDirectory(tmp_path)
    before = "error: of an earlier attempt\n"
    files.log().write_text(before + log)
    assert files.last_words(since=len(before)) == said


def test_five_attempts_in_a_row_that_save_nothing_are_in_vain(tmp_path: Path) -> None:
    files = ElementDirectory(tmp_path)

    def attempts(count: int) -> bool:
        for _ in range(count):
            files.note(STARTED, saved=files.saved())
        return files.stuck()

    def save(stage: str, steps: int) -> None:
        (tmp_path / stage).mkdir(exist_ok=True)
        (tmp_path / stage / "compute.json").write_text(json.dumps({"steps": steps}))

    assert not attempts(4)
    assert attempts(1)
    save("teacher", 100)
    assert not attempts(4)
    save("student", 1)  # whose steps are fewer, but further
    assert not attempts(4)
    files.note(FAILED, reason="")
    assert not attempts(4)
    assert attempts(1)
