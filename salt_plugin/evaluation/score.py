"""One number for encoders of one run, by the protocols of `salt probe`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from salt_plugin.config import ProbeConfig, clip_seen, probe_config_for
from salt_plugin.config.application import DEMO_PREFIX
from salt_plugin.data import DemoSpec, make_demo
from salt_plugin.errors import ConfigError
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.extract import view_dataset
from salt_plugin.evaluation.leaks import find_leaks
from salt_plugin.evaluation.lists import read_lists
from salt_plugin.evaluation.protocol import probe, stored_features
from salt_plugin.evaluation.views import Views
from salt_plugin.models.encoder import VideoEncoder


class ProbeScore:
    """Scores encoders on labelled videos; called with one, it returns the test accuracy.

    With `attentive` it is the paper's fast protocol (section 6): one probe, learning rate 1e-3,
    weight decay 0.01, one centred view.

    Args:
        train: Videos to learn from: a CSV (`path label`) or a folder of classes.
        test: Videos to score on.
        view: Clip and normalisation, as `input` on an encoder's card: `frames`, `size`, `step`,
            `fps`, `mean` and `std`.
        cache: Folder of features.
        protocol: `attentive`, `linear` or `knn`.
        keep: Leave an encoder's features in `cache` once it has its score; else `cache` is
            emptied then.
        **changes: Further keys of the evaluation, e.g. `epochs`.

    Attributes:
        clip: Of the clips, `frames`, `size` in pixels, and `step` or `fps`.
        leaks: Videos in two lists and files with two labels, as `find_leaks` counts them.

    Raises:
        SaltError: The lists cannot be used together, or a key or value cannot work.
    """

    def __init__(
        self,
        train: Path,
        test: Path,
        view: Mapping[str, Any],
        cache: Path,
        protocol: str = "attentive",
        keep: bool = True,
        **changes: Any,
    ) -> None:
        given: dict[str, Any] = {"train": str(train.absolute()), "test": str(test.absolute())}
        given |= {"grid": "fast", "protocols": [protocol], "cache": str(cache)}
        self.protocol = protocol
        self.config: ProbeConfig = probe_config_for(view, "folder", given | changes)
        self.clip = clip_seen(self.config)
        self.leaks = find_leaks(read_lists(self.config))
        self._mean, self._std = view["mean"], view["std"]
        self._keep = keep

    def __call__(self, encoder: VideoEncoder) -> float:
        """Returns the accuracy of the protocol on the test videos."""
        report = probe(self._frozen(encoder), self.config, _device_of(encoder))
        if not self._keep:
            for store in Path(str(self.config.cache)).iterdir():
                shutil.rmtree(store)
        return report.results[self.protocol].accuracy

    def features(self, encoder: VideoEncoder) -> Tensor:
        """Returns the mean tokens of the test clips, float32 [N, D], on the CPU.

        They are stored, so that the score does not compute them again.
        """
        stored = stored_features(self._frozen(encoder), self.config, "test", _device_of(encoder))
        return stored.means[:, 0]

    def first_clip(self) -> tuple[Tensor, Tensor]:
        """Returns the first test clip as the encoder sees it [C, T, H, W], and in [0, 1]."""
        paths = read_lists(self.config).test.paths
        return view_dataset(paths, Views(), self.config, self._mean, self._std).first()

    def _frozen(self, encoder: VideoEncoder) -> FrozenEncoder:
        return FrozenEncoder.of("encoder", encoder, self._mean, self._std)


def demo_lists(config: Mapping[str, Any], task: str) -> tuple[Path, Path]:
    """Returns the labelled lists, train and test, of a run's own demo set.

    Args:
        config: As `RunDirectory.stored_config` gives it.
        task: `direction` or `digit`.

    Raises:
        ConfigError: The run was not trained on the demo set.
    """
    inputs = config["input_dir"]
    if not (isinstance(inputs, str) and inputs.startswith(DEMO_PREFIX)):
        raise ConfigError(
            f"the run was trained on input_dir={inputs}, not on the demo set; name "
            "labelled videos by --train CSV --test CSV"
        )
    folder = make_demo(DemoSpec(**config["method"]["data"]["demo"]))
    return folder / f"train_{task}.csv", folder / f"test_{task}.csv"


def _device_of(encoder: VideoEncoder) -> str:
    return str(next(encoder.parameters()).device)
