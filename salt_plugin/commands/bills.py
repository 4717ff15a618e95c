"""`salt flops RUN ...`: what encoders have cost in all, once they are trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from salt_plugin.compute import Bill


def bills(runs: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the bill of each run, and its share of what students of one teacher split.

    Args:
        runs: Run directories or encoder files.

    Returns:
        For each: `run`, `convention`, `parts` and `total`; `students`, how many of the runs learnt
        from its teacher, and `shared_total`, with the teacher's training split among them. What
        nobody has counted is None.

    Raises:
        CheckpointError: A run has no finished encoder of ours.
    """
    from salt_plugin.checkpoints import find_encoder, read_card

    cards = [read_card(find_encoder(run)) for run in runs]
    students = Counter(card.get("teacher_fingerprint") for card in cards)
    found = []
    for run, card in zip(runs, cards, strict=True):
        stored = (card.get("compute") or {}).get("bill")
        # An encoder without a ledger: its own training, too, is unknown.
        bill = Bill(stored["parts"] if stored else {"student": None})
        teacher = card.get("teacher_fingerprint")
        among = students[teacher] if teacher else 1
        shared = bill.shared(among).total
        found.append({"run": run, **bill.as_dict(), "students": among, "shared_total": shared})
    return found
