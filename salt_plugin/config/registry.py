"""The registry of methods, with all that differs between them; no torch here.

No other module compares the names of methods.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from salt_plugin.compute.step_costs import (
    CLASSES,
    EMA_TEACHER,
    FROZEN_TEACHER,
    MULTI_VIEW,
    PIXELS,
    CostedMethod,
)
from salt_plugin.config.finetune import FineTuneConfig
from salt_plugin.config.schema import (
    LeVJEPAConfig,
    MethodConfig,
    PixelTeacherConfig,
    SALTConfig,
    VJEPAConfig,
)
from salt_plugin.config.suggest import suggestion
from salt_plugin.errors import ConfigError

# Clips of a step on all devices, as the paper prints for both stages; `printed_lr` is for them.
PRINTED_BATCH = 3072


@dataclass(frozen=True, kw_only=True)
class MethodSpec(CostedMethod):
    """A method; `conf/method/NAME.yaml` has its defaults.

    Attributes:
        config: Type of the node `method`.
        method: Where the `VideoMethod` lies, as `module:class`; it is loaded when training starts.
        teacher: As in `CostedMethod`. Such a method has the key `method.teacher`.
        printed_lr: Learning rate that is printed for it (`PRINTED_BATCH`).
        reconstructs: Whether it has `reconstruct`, of which a figure is drawn.
        planned: Whether it has a line of its own in `salt plan`.
        cls_token: Whether its encoder has a `[cls]` token.
        over_batch: Whether its loss is a statistic of a micro-batch of all devices, which have to
            have equally many micro-batches.
        classifies: Whether it learns the labels of its list, on an encoder that is given.
        unranked: Why a run's loss does not tell how good its encoder is, as a relative clause;
            None where the targets of several runs can be the same.
    """

    config: type[MethodConfig]
    method: str
    teacher: MethodSpec | None = None
    printed_lr: float = 6.25e-4
    reconstructs: bool = False
    planned: bool = True
    cls_token: bool = False
    over_batch: bool = False
    classifies: bool = False
    unranked: str | None = None

    @property
    def stages(self) -> list[MethodSpec]:
        """The methods that its stages are of, in order; a stage has the name of their `result`."""
        return [*(self.teacher.stages if self.teacher else []), self]


_MOVING = (
    "whose targets are a moving average of its own encoder: they differ from run to run, so losses "
    "do not compare, and the lowest may be that of an encoder that has collapsed"
)

_PIXEL_TEACHER = MethodSpec(
    name="pixel_teacher",
    config=PixelTeacherConfig,
    method="salt_plugin.methods.pixel_teacher:PixelTeacher",
    step=PIXELS,
    result="teacher",
    reconstructs=True,
)
_SALT = MethodSpec(
    name="salt",
    config=SALTConfig,
    method="salt_plugin.methods.salt:SALT",
    step=FROZEN_TEACHER,
    teacher=_PIXEL_TEACHER,
)
_VJEPA = MethodSpec(
    name="vjepa",
    config=VJEPAConfig,
    method="salt_plugin.methods.vjepa:VJEPA",
    step=EMA_TEACHER,
    planned=False,  # costs what V-JEPA 2 does
    unranked=_MOVING,
)
_VJEPA2 = replace(_VJEPA, name="vjepa2", printed_lr=5.25e-4, planned=True)
_VIDEOMAE = MethodSpec(
    name="videomae",
    config=PixelTeacherConfig,
    method="salt_plugin.methods.pixel_teacher:PixelTeacher",
    step=PIXELS,
    reconstructs=True,
    unranked="whose loss is that of a pixel teacher and does not tell how good the encoder is",
)
_LEVJEPA = MethodSpec(
    name="levjepa",
    config=LeVJEPAConfig,
    method="salt_plugin.methods.levjepa:LeVJEPA",
    step=MULTI_VIEW,
    printed_lr=4e-4,
    cls_token=True,
    over_batch=True,
    unranked="whose loss is a statistic of its own batch and does not compare between batches",
)

_FINETUNE = MethodSpec(
    name="finetune",
    config=FineTuneConfig,
    method="salt_plugin.methods.finetune:FineTune",
    step=CLASSES,
    printed_lr=0.0,  # none is printed
    planned=False,  # costs what its lists and its encoder make it
    classifies=True,
    unranked="whose loss is that of labels and does not tell how good the encoder is without them",
)

METHODS = {
    spec.name: spec
    for spec in (_SALT, _VJEPA, _VJEPA2, _VIDEOMAE, _LEVJEPA, _PIXEL_TEACHER, _FINETUNE)
}


def get(name: Any) -> MethodSpec:
    """Returns a method by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    spec = METHODS.get(name) if isinstance(name, str) else None
    if spec is None:
        raise ConfigError(f"method.name={name!r} is no method; {suggestion(str(name), METHODS)}")
    return spec
