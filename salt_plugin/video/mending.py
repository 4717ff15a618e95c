"""The command line that makes a file of another that is read slowly, or not by every reader."""

from __future__ import annotations

import os
import shlex


def mending_line(path: str, short_side: int, stream: int) -> str:
    """Returns the command line that makes closed-GOP H.264 of a file.

    Args:
        path: The file; the new one lies beside it and ends in `.mended.mp4`.
        short_side: Of the new frames, in pixels; smaller ones keep theirs.
        stream: Index of the video stream in the file.
    """
    width, height = (f"trunc(min({short_side},{side})/2)*2" for side in ("iw", "ih"))
    scale = f"scale='if(gt(iw,ih),-2,{width})':'if(gt(iw,ih),{height},-2)'"
    new = os.path.splitext(path)[0] + ".mended.mp4"
    return (
        f'ffmpeg -xerror -i {shlex.quote(path)} -map 0:{stream} -an -vf "{scale}" -c:v libx264 '
        f"-crf 18 -g 30 -bf 2 -flags +cgop -pix_fmt yuv420p -movflags +faststart "
        f"{shlex.quote(new)}"
    )
