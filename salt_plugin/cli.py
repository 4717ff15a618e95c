"""The `salt` command: `salt VERB ...`."""

from __future__ import annotations

import importlib
import logging
import os
import select
import sys

from salt_plugin import __version__
from salt_plugin.errors import SaltError
from salt_plugin.job import fail
from salt_plugin.report.console import accept_any_name

STDOUT = 1

# Each verb, which is a module in `commands`, with a line of help.
VERBS = {
    "train": "train a method, as lightly-ssl-train does; method=salt unless another is named",
    "data": "check the files of a list or folder, or write them again, quick to read",
    "probe": "evaluate a frozen encoder: attentive, linear and k-NN probes",
    "features": "write the features of windows of videos and of images by a frozen encoder",
    "track": "probe the encoders that a run kept; rank students of a teacher by loss",
    "compare": "train methods at matched FLOPs, probe them alike, tabulate and draw",
    "flops": "what training costs in FLOPs, by part; the paper's totals beside ours",
    "plan": "the steps that a budget in FLOPs pays for, for each method",
    "doctor": "how fast a run would be on this machine, and which key would help",
    "launch": "run a pipeline of stages on a cluster, or on this machine",
    "status": "how the elements of a study are, or the stages of a run",
    "cancel": "cancel what waits or runs of a study",
    "retry": "submit again what is missing of a study",
    "export": "write weights for Hugging Face, timm or torch",
}


def main() -> None:
    """Entry point of the `salt` script; ends silently if its output is closed, as by `| head`."""
    try:
        try:
            _main(sys.argv[1:])
        finally:
            print(end="", flush=True)
    except BrokenPipeError:
        if not _unread():
            raise
        # Python would write what is left when it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
        raise SystemExit(1) from None


def _unread() -> bool:
    """Returns whether standard output is a pipe that nobody reads: another one may have broken."""
    poll = select.poll()
    poll.register(STDOUT, 0)
    return bool(poll.poll(0))


def _main(arguments: list[str]) -> None:
    if arguments == ["--version"]:
        print(__version__)
    elif not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
    elif arguments[0] in VERBS:
        _call(arguments[0], arguments[1:])
    elif "=" in arguments[0] or arguments[0].startswith(("-", "~")):
        _call("train", arguments)
    else:
        fail(f"unknown verb {arguments[0]!r}; choose one of {', '.join(VERBS)}")


def usage() -> str:
    """Returns the help of the script."""
    verbs = "\n".join(f"  {verb:<10} {text}" for verb, text in VERBS.items())
    return (
        f"usage: salt VERB ...\n\nverbs:\n{verbs}\n\n"
        "salt VERB --help tells more of a verb (of train, the configuration), salt --version the "
        "version."
    )


def _call(verb: str, arguments: list[str]) -> None:
    accept_any_name()
    # Libraries import it, and it complains of a HOME that cannot be written to, but needs none.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    module = importlib.import_module(f".{verb}", "salt_plugin.commands")
    try:
        module.main(arguments)
    except SaltError as error:
        fail(str(error), error.exit_status)


if __name__ == "__main__":
    main()
