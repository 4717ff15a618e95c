"""Which files a list or a folder may lead to: those within it, or within what the user names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from salt_plugin.errors import DataError

# Linux opens no path of more than 4096 bytes.
MAX_LINE = 2**14


class Bounds:
    """A folder, and a further one if need be; `..` and links are resolved before comparing.

    Args:
        folder: What the user named, or the folder of the list that the user named. It may be a
            link itself.
        root: A further folder, `/` for anywhere; None for none.
        root_key: How it is given, `{}` for the folder, for messages.

    Raises:
        DataError: There is no such further folder.
    """

    def __init__(self, folder: str | os.PathLike[str], root: str | None, root_key: str) -> None:
        self._folder = os.path.realpath(folder)
        self._key = root_key
        self._roots = [self._folder]
        if root is not None:
            further = os.path.realpath(os.path.expanduser(root))
            if not os.path.isdir(further):
                raise DataError(f"{self._given(root)} is no folder: name one that holds the files")
            self._roots.append(further)
        self._real: dict[str, str] = {}

    def hold(self, path: str) -> bool:
        """Tells whether an absolute path stays within, whether there is such a file or not."""
        real = self._resolved(path)
        return any(real == root or real.startswith(os.path.join(root, "")) for root in self._roots)

    def _given(self, root: str) -> str:
        return self._key.replace("{}", root)

    def _resolved(self, path: str) -> str:
        folder, name = os.path.split(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        resolved = os.path.join(self._real[folder], name)
        # One look at each file: on network disks each costs, and lists have millions.
        if name in ("", os.curdir, os.pardir) or os.path.islink(resolved):
            return os.path.realpath(path)
        return resolved

    def refused(self, what: str, paths: Sequence[str], shown: Sequence[str]) -> DataError:
        """Returns the error of paths that lead outside.

        Args:
            what: Of whom, and how many, as the beginning of a sentence.
            paths: All of them.
            shown: Lines on the first.
        """
        folders = {os.path.dirname(self._resolved(path)) for path in paths}
        listed = "\n".join(f"  {line}" for line in shown)
        return DataError(
            f"{what} outside of {self._folder}; the first:\n{listed}\n"
            "A list or folder of somebody else's could lead to any file that you can read. If "
            f"these are meant, allow them by {self._given(os.path.commonpath(folders))}; "
            f"{self._given('/')} allows files anywhere."
        )


def read_lines(file: Path) -> list[str]:
    """Returns the lines of a text file that somebody else may have written.

    Raises:
        DataError: It is missing, no text, or has a line longer than any path.
    """
    lines: list[str] = []
    try:
        if not file.is_file():
            raise OSError("it is no regular file")
        with file.open(encoding="utf-8-sig") as opened:
            while line := opened.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise DataError(
                        f"{file}: line {len(lines) + 1} has more than {MAX_LINE} characters: "
                        "expected a path and a label on each line; mend or remove it."
                    )
                lines.append(line)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {file} as UTF-8 text: {error}.") from None
    return lines
