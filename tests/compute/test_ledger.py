from __future__ import annotations

import json

from salt_plugin.compute import Ledger


def test_adds_up_steps() -> None:
    ledger = Ledger()
    ledger.add_step({"encoder": 10, "predictor": 5}, clips=4, tokens=100, seconds=0.5)
    ledger.add_step({"encoder": 20, "predictor": 1}, clips=4, tokens=80, seconds=0.25)
    assert ledger.flops == {"encoder": 30, "predictor": 6}
    assert ledger.total_flops == 36
    assert (ledger.steps, ledger.clips, ledger.tokens, ledger.seconds) == (2, 8, 180, 0.75)


def test_goes_on_from_its_file() -> None:
    first = Ledger()
    first.add_step({"encoder": 10**22}, clips=4, tokens=100, seconds=0.5)
    stored = json.loads(json.dumps(first.as_dict()))
    assert stored["convention"] == "exact"
    assert stored["total_flops"] == 10**22

    resumed = Ledger()
    resumed.load(stored)
    assert resumed == first
    for ledger in (first, resumed):
        ledger.add_step({"encoder": 1, "decoder": 2}, clips=1, tokens=1, seconds=1.0)
    assert resumed.as_dict() == first.as_dict()


def test_ledgers_do_not_share_their_books() -> None:
    first, second = Ledger(), Ledger()
    first.add_step({"encoder": 1}, clips=1, tokens=1, seconds=1.0)
    assert second.flops == {}
