"""The methods, each an algorithm on one screen."""

from salt_plugin.methods.base import VideoMethod
from salt_plugin.methods.finetune import FineTune
from salt_plugin.methods.levjepa import LeVJEPA
from salt_plugin.methods.pixel_teacher import PixelTeacher, Reconstruction
from salt_plugin.methods.recipe import Recipe
from salt_plugin.methods.salt import SALT
from salt_plugin.methods.vjepa import VJEPA

__all__ = [
    "SALT",
    "VJEPA",
    "FineTune",
    "LeVJEPA",
    "PixelTeacher",
    "Recipe",
    "Reconstruction",
    "VideoMethod",
]
