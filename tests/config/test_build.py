from __future__ import annotations

import pytest

from salt_plugin.config import build
from salt_plugin.errors import ConfigError
from salt_plugin.losses import LatentLoss
from salt_plugin.masks import MaskGenerator, MultiBlockMasks
from salt_plugin.transforms import SALTTransform

LOSS = {"_target_": "salt_plugin.losses.LatentLoss"}


def test_builds_what_the_node_names() -> None:
    loss = build({**LOSS, "distance": "mse"}, "method.loss", LatentLoss)
    assert isinstance(loss, LatentLoss)
    assert loss.distance == "mse"


def test_lists_and_inner_nodes_arrive_as_plain_values() -> None:
    node = {
        "_target_": "salt_plugin.masks.MultiBlockMasks",
        "short_range": {"num_blocks": 3, "scale": 0.2},
        "aspect_ratio": [0.5, 2.0],
    }
    masks = build(node, "method.masks", MaskGenerator)
    assert isinstance(masks, MultiBlockMasks)
    assert masks.specs[0].num_blocks == 3
    assert masks.aspect_ratio == (0.5, 2.0)


def test_arguments_beside_the_node() -> None:
    node = {"_target_": "salt_plugin.transforms.SALTTransform", "hflip": 0.0}
    transform = build(node, "method.transform", SALTTransform, size=48)
    assert isinstance(transform, SALTTransform)
    assert transform.size == (48, 48)


@pytest.mark.parametrize(
    "target", [None, "", "LatentLoss", "salt_plugin.losses.NoLoss", "no_such_module.Loss"]
)
def test_class_that_is_not_there(target: str | None) -> None:
    with pytest.raises(ConfigError, match=r"^method\.loss\._target_=.* cannot be loaded: "):
        build({"_target_": target}, "method.loss", LatentLoss)


def test_unknown_argument() -> None:
    message = r"^method\.loss\.distanse: unknown key; did you mean 'distance'\?"
    with pytest.raises(ConfigError, match=message):
        build({**LOSS, "distanse": "l1"}, "method.loss", LatentLoss)


def test_argument_that_is_not_the_configs_to_set() -> None:
    node = {"_target_": "salt_plugin.transforms.SALTTransform", "size": 48}
    with pytest.raises(ConfigError, match=r"^method\.transform\.size: unknown key; known here: "):
        build(node, "method.transform", SALTTransform, size=32)


def test_value_that_the_class_refuses_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"^method\.loss\.distance='l3' is unknown") as error:
        build({**LOSS, "distance": "l3"}, "method.loss", LatentLoss)
    assert "\n" not in str(error.value)


def test_value_that_python_refuses_names_the_node() -> None:
    node = {"_target_": "salt_plugin.masks.TubeMasks", "ratio": "most"}
    with pytest.raises(ConfigError, match=r"^method\.masks: "):
        build(node, "method.masks", MaskGenerator)


def test_class_of_another_kind() -> None:
    with pytest.raises(ConfigError, match=r"^method\.masks\._target_=.*expected MaskGenerator"):
        build(LOSS, "method.masks", MaskGenerator)
