"""`salt export`: an encoder and its predictor in another layout."""

from __future__ import annotations

import argparse
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Writes what transformers loads, and prints what was written.

    Args:
        arguments: The command line after the verb.

    Raises:
        CheckpointError: There is nothing to export, or the folder is not free.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.stage and given.run.is_file():
        parser.error(f"--stage: {given.run} is a file, not a run directory")
    output = given.output or default_output(given.run)

    from salt_plugin.checkpoints import STUDENT_FIRST, export_hf

    order = (given.stage,) if given.stage else STUDENT_FIRST
    done = export_hf(given.run, output, order=order, force=given.force)
    for file, content in done.files.items():
        print(f"{file}: {content}")
    if done.encoder_only:
        print(
            f"The encoder alone: {done.encoder_only}. transformers makes a random predictor and "
            "warns; call the model with skip_predictor=True"
        )
    if done.assumed_size:
        print(
            f"The size of clips is not known: crop_size={done.size} was written, by which "
            "transformers gives tokens their places; edit config.json for clips of another size"
        )
    print(f"Load it: transformers.VJEPA2Model.from_pretrained({str(output)!r})")


def default_output(run: Path) -> Path:
    """Returns where an export goes: `RUN/hf`, or `FILE-hf` beside a file."""
    return run.with_name(f"{run.name.partition('.')[0]}-hf") if run.is_file() else run / "hf"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="salt export",
        description="Writes an encoder, and its predictor where it fits, in another layout.",
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        type=Path,
        help="a run directory, an encoder file, or V-JEPA 2 weights in either public layout",
    )
    parser.add_argument(
        "--format",
        choices=["hf"],
        required=True,
        help="hf: Hugging Face's VJEPA2Model (config.json, model.safetensors)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where to (RUN/hf; beside a file, FILE-hf)"
    )
    parser.add_argument(
        "--stage",
        choices=["student", "teacher"],
        help="which encoder of a run directory (its student, or else its teacher)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace the files of an earlier export"
    )
    return parser
