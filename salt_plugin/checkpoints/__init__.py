"""Encoder files: writing ours, and finding and reading them."""

from salt_plugin.checkpoints.encoder_file import (
    ENCODER_FILE,
    STUDENT_FIRST,
    TEACHER_FIRST,
    find_encoder,
    load_encoder,
    read_card,
    save_encoder,
)

__all__ = [
    "ENCODER_FILE",
    "STUDENT_FIRST",
    "TEACHER_FIRST",
    "find_encoder",
    "load_encoder",
    "read_card",
    "save_encoder",
]
