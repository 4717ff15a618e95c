from __future__ import annotations

from pathlib import Path

import torch

from salt_plugin.data import ClipSampler, DemoSpec, EvalDataset, make_demo, read_inputs
from salt_plugin.evaluation import knn_accuracy, linear_accuracy
from salt_plugin.evaluation.demo import SHUFFLED, TASKS, probe_demo
from salt_plugin.models import EncoderShape, VideoEncoder
from salt_plugin.transforms import SALTEvalTransform


def test_the_table_is_that_of_all_clips_at_once(tmp_path: Path) -> None:
    folder = make_demo(DemoSpec(train=40, test=24), tmp_path)
    torch.manual_seed(0)
    shape = EncoderShape.named("vit_nano", patch_size=8)
    encoders = {name: VideoEncoder(shape, init_std=0.06).eval() for name in ("random", "student")}
    sampler = ClipSampler(8, step=1)
    rows = probe_demo(encoders, folder, sampler, size=32, seed=7)
    assert [row["encoder"] for row in rows] == ["random", "student", SHUFFLED]

    for row in rows:
        features, labels = [], []
        for number, split in enumerate(("train", "test")):
            videos = read_inputs(folder / f"{split}_direction.csv")
            dataset = EvalDataset(videos, sampler, SALTEvalTransform(32))
            clips = torch.stack([dataset[i][0] for i in range(len(videos.paths))])
            if row["encoder"] == SHUFFLED:
                generator = torch.Generator().manual_seed(7 + number)
                orders = torch.rand(len(clips), 8, generator=generator).argsort(1)
                pairs = zip(clips, orders, strict=True)
                clips = torch.stack([clip[:, order] for clip, order in pairs])
            name = "student" if row["encoder"] == SHUFFLED else str(row["encoder"])
            with torch.no_grad():
                features.append(encoders[name](clips).mean(1))
            labels.append(
                {
                    task: torch.tensor(read_inputs(folder / f"{split}_{task}.csv").labels)
                    for task in TASKS
                }
            )
        for task in TASKS:
            known = (features[0], labels[0][task], features[1], labels[1][task])
            assert row[f"{task}_knn"] == knn_accuracy(*known)
            assert row[f"{task}_linear"] == linear_accuracy(*known)
