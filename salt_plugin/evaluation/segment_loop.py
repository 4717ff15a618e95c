"""Tokens of segments, batch by batch, as they are needed: nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from salt_plugin.config import ProbeConfig
from salt_plugin.data import VideoReadError
from salt_plugin.data.loader import ClipLoader
from salt_plugin.data.shared_memory import clip_bytes, require_shared_memory
from salt_plugin.data.workers import loader_workers
from salt_plugin.errors import SaltError
from salt_plugin.evaluation.bank import ProbeBank
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.features import encode
from salt_plugin.evaluation.processes import Processes
from salt_plugin.evaluation.segments import SegmentDataset
from salt_plugin.evaluation.views import stack_or_error


class SegmentLoop(NamedTuple):
    """Encodes lists of videos, shared between processes.

    Attributes:
        encoder: On the device where it computes.
        config: With the protocol `vjepa2`.
        processes: Each takes every n-th video of a batch.
    """

    encoder: FrozenEncoder
    config: ProbeConfig
    processes: Processes

    def steps(
        self,
        paths: list[str],
        batches: Sequence[Tensor],
        epoch: int,
        use: Callable[[Tensor, Tensor, int], None],
    ) -> Iterator[None]:
        """Lets the tokens of each batch be used, and yields after each.

        Args:
            paths: Of the list.
            batches: Places in the list, int64 [b].
            epoch: Counted from 1 in training, where clips are augmented; 0 in a test.
            use: Called with the places of some videos of this process's share of a batch, their
                tokens [b, V, S * N, D], and the number of videos of the batch.

        Raises:
            SaltError: A video cannot be read, in any process.
        """
        config, encoder, processes = self.config, self.encoder, self.processes
        crops = 1 if epoch else config.crops
        at_once = max(1, config.feature_batch_size // (config.segments * crops))
        shares = [
            [part for part in batch[processes.rank :: processes.size].split(at_once) if len(part)]
            for batch in batches
        ]
        parts = [[(epoch, place) for place in part.tolist()] for share in shares for part in share]
        workers = loader_workers(config.workers)
        clip = clip_bytes(config.frames, config.size, config.size, value=4)
        require_shared_memory(
            at_once * crops * config.segments * clip,
            workers,
            "--workers 0 (in a set's file workers: 0)",
            batches=len(parts),
            processes=processes.size,
        )
        loaded = iter(
            ClipLoader(
                SegmentDataset(paths, config, epoch > 0, encoder.mean, encoder.std),
                workers=workers,
                stall=config.stall,
                key="stall",
                batch_sampler=parts,
                collate_fn=stack_or_error,
            )
        )
        for batch, share in zip(batches, shares, strict=True):
            failure = None
            try:
                for places in share:
                    views_bvscthw = next(loaded)
                    if isinstance(views_bvscthw, VideoReadError):
                        raise views_bvscthw
                    clips = views_bvscthw.flatten(1, 2)
                    tokens = encode(encoder, clips, config, config.layers)
                    tokens_bvnd = tokens.unflatten(1, (crops, -1)).flatten(2, 3)
                    use(places, tokens_bvnd, len(batch))
            except SaltError as error:
                failure = error
            for reported in filter(None, processes.gather(failure)):
                raise reported
            yield

    def predictions(self, bank: ProbeBank, paths: list[str]) -> tuple[Tensor, Tensor]:
        """Returns each probe's classes, int64 [P, n], and whether its outputs are finite, [P]."""
        found_pn = torch.zeros(len(bank.probes), len(paths), dtype=torch.int64)
        finite_p = torch.ones(len(bank.probes), dtype=torch.bool)

        def look(places: Tensor, tokens_bvnd: Tensor, whole: int) -> None:
            logits_pkc = bank.logits(tokens_bvnd.flatten(0, 1))
            scores_pbc = logits_pkc.unflatten(1, tokens_bvnd.shape[:2]).softmax(-1).mean(2).cpu()
            found_pn[:, places] = scores_pbc.argmax(-1)
            finite_p.logical_and_(scores_pbc.isfinite().flatten(1).all(1))

        batches = torch.arange(len(paths)).split(self.config.batch_size)
        for _ in self.steps(paths, batches, 0, look):
            pass
        found, finite = zip(*self.processes.gather((found_pn, finite_p)), strict=True)
        return torch.stack(found).sum(0), torch.stack(finite).all(0)
