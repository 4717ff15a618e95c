"""Errors that a user can mend: each names the file or key, what was found and the fix."""


class SaltError(Exception):
    """Base of every error that entry points print without a traceback."""


class ConfigError(SaltError):
    """A configuration key or value that cannot work."""


class DataError(SaltError):
    """An input folder, list or video that cannot be read."""


class CheckpointError(SaltError):
    """An encoder file, run directory or training checkpoint that does not fit."""
