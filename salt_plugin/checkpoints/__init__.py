"""Weights as files: ours, and V-JEPA 2's in both public layouts."""

from salt_plugin.checkpoints.export import Exported, export_hf, export_timm, export_torch
from salt_plugin.checkpoints.hub_folder import model_card, save_encoder_folder
from salt_plugin.checkpoints.load import (
    STUDENT_FIRST,
    card_of,
    find_encoder,
    find_predictor,
    load_encoder,
    load_head,
    load_predictor,
    read_bill,
    read_input,
    read_start,
)
from salt_plugin.checkpoints.own_files import (
    ENCODER_FILE,
    PREDICTOR_FILE,
    read_card,
    read_predictor_card,
    save_encoder,
    save_head,
    save_predictor,
)
from salt_plugin.checkpoints.safetensors_file import read_safetensors
from salt_plugin.checkpoints.torch_file import read_torch_file

__all__ = [
    "ENCODER_FILE",
    "PREDICTOR_FILE",
    "STUDENT_FIRST",
    "Exported",
    "card_of",
    "export_hf",
    "export_timm",
    "export_torch",
    "find_encoder",
    "find_predictor",
    "load_encoder",
    "load_head",
    "load_predictor",
    "model_card",
    "read_bill",
    "read_card",
    "read_input",
    "read_predictor_card",
    "read_safetensors",
    "read_start",
    "read_torch_file",
    "save_encoder",
    "save_encoder_folder",
    "save_head",
    "save_predictor",
]
