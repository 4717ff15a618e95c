"""`from_pretrained`, `save_pretrained` and `push_to_hub`, by huggingface_hub's mixin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

import salt_plugin
from salt_plugin.errors import CheckpointError

# What `load_encoder` reads of a repository.
FILES = ["*.safetensors", "*.safetensors.index.json", "*.json"]


class OnTheHub(ModelHubMixin):
    """An encoder that is kept in a folder, or on Hugging Face's hub, with its card.

    The folder is that of `salt export --format timm`: timm and this package load it.

    Attributes:
        card: What the file told of the encoder: method, bill, clips; empty for a new one.
    """

    # The files state the shape; the mixin is to keep no arguments.
    _hub_mixin_config: Any = MappingProxyType({})
    card: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        device: str | torch.device = "cpu",
        **download: Any,
    ) -> Any:
        """Returns a trained encoder, in evaluation mode.

        Args:
            pretrained_model_name_or_path: What `load_encoder` takes, or a name on the hub, also of
                a V-JEPA 2 model in Hugging Face's layout.
            device: Where to put it.
            **download: `revision`, `cache_dir`, `token`, `local_files_only` and others of
                huggingface_hub's `snapshot_download`.

        Raises:
            CheckpointError: There is neither such a path nor such a name, or no encoder in it.
        """
        path = Path(pretrained_model_name_or_path).expanduser()
        if not path.exists():
            name = str(pretrained_model_name_or_path)
            try:
                path = Path(snapshot_download(name, allow_patterns=FILES, **download))
            except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
                reason = str(error).strip().split("\n")[0]
                raise CheckpointError(
                    f"{name} is no path here, and the hub did not give a model of this name "
                    f"({reason}); expected a run, a file, a folder, or USER/NAME on the hub"
                ) from None
        return salt_plugin.load_encoder(path, device)

    def _save_pretrained(self: Any, save_directory: Path) -> None:
        salt_plugin.save_encoder_folder(self, save_directory)

    def generate_model_card(self: Any, *args: Any, **about: Any) -> ModelCard:
        """Returns the model card, made of `card`.

        Args:
            *args: None.
            **about: `license`, an identifier of the hub's such as `cc-by-4.0`, and `data`, the name
                of what it was trained on, by `model_card_kwargs` of `push_to_hub`.
        """
        return ModelCard(salt_plugin.model_card(self, **about))
