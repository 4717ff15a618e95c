from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from salt_plugin.models import EncoderShape, FrozenTeacher, VideoEncoder, fingerprint

SHAPE = EncoderShape("small", embed_dim=24, depth=2, num_heads=2, patch_size=4)


class Student(nn.Module):
    def __init__(self, teacher: FrozenTeacher) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.teacher = teacher


@pytest.fixture
def teacher() -> FrozenTeacher:
    torch.manual_seed(0)
    return FrozenTeacher(VideoEncoder(SHAPE, drop_path=0.5))


def _latents(teacher: FrozenTeacher, clip: torch.Tensor) -> torch.Tensor:
    return teacher(teacher.encoder.patchify(clip), teacher.encoder.grid(clip))


def test_has_nothing_to_train_and_nothing_to_save(teacher: FrozenTeacher) -> None:
    student = Student(teacher)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert teacher.state_dict() == {}
    assert set(student.state_dict()) == {"linear.weight", "linear.bias"}
    # Nor is anything missing: a checkpoint of the student loads, and leaves the teacher as it is.
    before = teacher.fingerprint()
    student.load_state_dict(student.state_dict())
    copy.deepcopy(student).load_state_dict(student.state_dict())
    assert teacher.is_intact()
    assert teacher.fingerprint() == before


def test_stays_in_evaluation_mode(teacher: FrozenTeacher) -> None:
    Student(teacher).train()
    teacher.train()
    assert not any(module.training for module in teacher.encoder.modules())
    clip = torch.randn(1, 3, 4, 8, 8)
    assert torch.equal(_latents(teacher, clip), _latents(teacher, clip))


def test_gives_no_graph_and_takes_no_gradient(teacher: FrozenTeacher) -> None:
    clip = torch.randn(1, 3, 4, 8, 8, requires_grad=True)
    latents = _latents(teacher, clip)
    assert latents.shape == (1, 8, 24)
    assert not latents.requires_grad
    torch.testing.assert_close(latents, teacher.encoder(clip).detach())


def test_moves_with_the_student(teacher: FrozenTeacher) -> None:
    student = Student(teacher).to(torch.float64)
    assert {p.dtype for p in teacher.encoder.parameters()} == {torch.float64}
    student.to("meta")
    assert {p.device.type for p in teacher.encoder.parameters()} == {"meta"}


def test_one_changed_bit_is_noticed(teacher: FrozenTeacher) -> None:
    before = teacher.fingerprint()
    buffer = io.BytesIO()
    torch.save(teacher.encoder.state_dict(), buffer)
    buffer.seek(0)
    assert fingerprint(torch.load(buffer, weights_only=True)) == before

    bits = teacher.encoder.norm.weight.data.view(torch.int32)
    for position in (0, 31):
        bits[5] ^= -(2**31) if position == 31 else 1
        assert not teacher.is_intact()
        bits[5] ^= -(2**31) if position == 31 else 1
    assert teacher.is_intact()
    assert teacher.fingerprint() == before


def test_matrices_in_the_type_of_autocast_change_no_bit_of_the_latents() -> None:
    torch.manual_seed(0)
    encoder = VideoEncoder(SHAPE)
    plain = FrozenTeacher(copy.deepcopy(encoder))
    low = FrozenTeacher(encoder, matrix_dtype=torch.bfloat16)
    assert low.encoder.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16
    assert low.encoder.norm.weight.dtype == torch.float32
    clip = torch.randn(2, 3, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(_latents(low, clip), _latents(plain, clip))
    assert low.fingerprint() == plain.fingerprint()
    assert low.is_intact()


def test_fingerprint_sees_names_types_and_shapes() -> None:
    zeros = torch.zeros(4)
    states = [
        {"a": zeros},
        {"b": zeros},
        {"a": zeros.view(2, 2)},
        {"a": zeros.to(torch.int32)},
        {"a": -zeros},
        {"a": zeros, "b": zeros},
    ]
    assert len({fingerprint(state) for state in states}) == len(states)
    ordered = {"a": zeros, "b": torch.ones(2)}
    assert fingerprint(ordered) == fingerprint(dict(reversed(ordered.items())))
