"""What happens beside the steps of a stage: accounts, metrics, collapse, encoders, checkpoints."""

from salt_plugin.callbacks.accounts import Accounts
from salt_plugin.callbacks.budget import Budget
from salt_plugin.callbacks.checkpoints import Checkpoints
from salt_plugin.callbacks.collapse import Collapse
from salt_plugin.callbacks.encoders import KeptEncoders
from salt_plugin.callbacks.metrics import Metrics
from salt_plugin.callbacks.nonfinite import NonFinite
from salt_plugin.callbacks.progress import Progress
from salt_plugin.callbacks.randomness import StepRandomness
from salt_plugin.callbacks.ranks import Ranks
from salt_plugin.callbacks.skipped import SkippedFiles
from salt_plugin.callbacks.writer import BackgroundWriter

__all__ = [
    "Accounts",
    "BackgroundWriter",
    "Budget",
    "Checkpoints",
    "Collapse",
    "KeptEncoders",
    "Metrics",
    "NonFinite",
    "Progress",
    "Ranks",
    "SkippedFiles",
    "StepRandomness",
]
