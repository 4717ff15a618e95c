"""`salt export`: an encoder and its predictor in another layout."""

from __future__ import annotations

import argparse
from pathlib import Path

LOADED = {
    "timm": "import timm, salt_plugin.models; "
    'timm.create_model("local-dir:{}", pretrained=True, num_classes=0)',
    "torch": 'torch.load("{}/encoder.pt", weights_only=True)["target_encoder"]',
}


def main(arguments: list[str]) -> None:
    """Writes what other libraries load, and prints what was written.

    Args:
        arguments: The command line after the verb.

    Raises:
        CheckpointError: There is nothing to export, or the folder is not free.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.stage and given.run.is_file():
        parser.error(f"--stage: {given.run} is a file, not a run directory")
    output = given.output or default_output(given.run, given.format)

    from salt_plugin.checkpoints import STUDENT_FIRST, export_hf, export_timm, export_torch

    order = (given.stage,) if given.stage else STUDENT_FIRST
    export = {"hf": export_hf, "timm": export_timm, "torch": export_torch}[given.format]
    done = export(given.run, output, order=order, force=given.force)
    for file, content in done.files.items():
        print(f"{file}: {content}")
    if given.format != "hf":
        print(f"Load it: {LOADED[given.format].format(output)}")
        return
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


def default_output(run: Path, layout: str) -> Path:
    """Returns where an export goes: `RUN/hf`, or `FILE-hf` beside a file, by the layout's name."""
    beside = run.with_name(f"{run.name.partition('.')[0]}-{layout}")
    return beside if run.is_file() else run / layout


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
        choices=["hf", "timm", "torch"],
        required=True,
        help="hf: transformers' VJEPA2Model; timm: a folder for timm and for Hugging Face's hub; "
        "torch: encoder.pt, state dicts with V-JEPA 2's names",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where to (RUN/FORMAT; beside a file, FILE-FORMAT)",
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
