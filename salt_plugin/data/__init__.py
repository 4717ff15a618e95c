"""Videos in: lists of files, readers, clips, the training stream and the demo set."""

from salt_plugin.data.clips import ClipSampler
from salt_plugin.data.dataset import ClipItem, EvalDataset, VideoDataset
from salt_plugin.data.demo import DemoSpec, make_demo
from salt_plugin.data.sampler import SampleKey, StepBatchSampler
from salt_plugin.data.sources import VideoList, read_inputs, require_readable
from salt_plugin.video.decord_reader import DecordReader
from salt_plugin.video.exact_reader import ExactReader
from salt_plugin.video.opening import open_video
from salt_plugin.video.reader import VideoReadError

__all__ = [
    "ClipItem",
    "ClipSampler",
    "DecordReader",
    "DemoSpec",
    "EvalDataset",
    "ExactReader",
    "SampleKey",
    "StepBatchSampler",
    "VideoDataset",
    "VideoList",
    "VideoReadError",
    "make_demo",
    "open_video",
    "read_inputs",
    "require_readable",
]
