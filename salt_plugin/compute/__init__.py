"""What training costs: closed forms in the token counts, and the ledger that adds them up."""

from salt_plugin.compute.bill import CONTINUED, INITIALISATION, TEACHER_TRAINING, Bill, stage_bill
from salt_plugin.compute.cost import pixel_teacher_step, recomputed, salt_step, vjepa_step
from salt_plugin.compute.ledger import Ledger

__all__ = [
    "CONTINUED",
    "INITIALISATION",
    "TEACHER_TRAINING",
    "Bill",
    "Ledger",
    "pixel_teacher_step",
    "recomputed",
    "salt_step",
    "stage_bill",
    "vjepa_step",
]
