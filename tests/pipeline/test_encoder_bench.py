"""What hearing costs: counted arithmetic against its closed form, at the real size too, and the report's two forms."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model

from svp_stream.audio.rolling_error import EncoderReport, RollingError
from svp_stream.audio.wav2vec import EncoderConfig
from svp_stream.audio.wav2vec_rolling import RollingConfig, RollingEncoder
from svp_stream.pipeline.encoder_bench import EncoderBench, HearingCost, hearing_costs
from svp_stream.pipeline.sd15_cost import count_hearing
from tests.fakes.tiny_sd15 import tiny_wav2vec2

SMALL = EncoderConfig(channels=(16,) * 7, width=32, layers=2, heads=2, feedforward=64, position_groups=4)


def context_flops(config: Wav2Vec2Config, tokens: int) -> int:
    """Operations of the context network over T tokens: projection, positional convolution, L layers; two for each
    multiplication and addition: `docs/method.md`, section 8."""
    d, f, c = config.hidden_size, config.intermediate_size, config.conv_dim[-1]
    kernel, groups = config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups
    # A kernel of even size is padded by half of itself on both sides, which makes one token too many.
    position = 2 * (tokens + 1) * kernel * d * d // groups
    layer = 2 * tokens * (4 * d * d + 2 * d * f + 2 * tokens * d)
    return int(2 * tokens * c * d + position + config.num_hidden_layers * layer)


def front_flops(config: Wav2Vec2Config) -> int:
    """Operations of the convolutions over the 720 samples of a frame."""
    samples, channels, total = 720, 1, 0
    for width, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1
        total += 2 * samples * kernel * channels * width
        channels = width
    return total


@pytest.mark.parametrize("window", [25, 100])
def test_the_real_size_costs_what_the_formula_says(window: int) -> None:
    with torch.device("meta"):
        model = Wav2Vec2Model(Wav2Vec2Config())
    idle = torch.zeros(512, device="meta"), torch.ones(512, device="meta")
    encoder = RollingEncoder(model, RollingConfig(window=window), idle)
    counted = count_hearing(encoder)
    assert counted == pytest.approx(front_flops(model.config) + context_flops(model.config, 2 * window), rel=1e-6)


def test_every_window_and_the_copy_are_measured() -> None:
    rows = hearing_costs(tiny_wav2vec2("group"), SMALL)
    assert [r.name for r in rows] == [*(f"rolling window of {s} s" for s in (1, 2, 4)), "causal copy"]
    one, two, four, copy = (r.gflop for r in rows)
    assert 0 < one < two < four and 0 < copy and all(r.ms > 0 for r in rows)
    assert four - two > 2 * (two - one) * 0.99, "the context grows with the window, attention with its square"


def test_the_report_in_two_forms() -> None:
    errors = EncoderReport("group", 3.0, 0.1, (RollingError(2.0, 40, 0.25, 0.97),))
    made = EncoderBench(errors, (HearingCost("rolling window of 2 s", 18.25, 310.0),), 1)
    table = made.table()
    assert "| rolling window of 2 s | 18.2 | 456 | 310.0 |" in table and "| 2 s | 0.250 (cos 0.970) |" in table
    told = json.loads(json.dumps(made.as_dict()))
    assert told["costs"][0]["gflop"] == 18.25 and told["errors"]["rows"][0]["look_ahead_ms"] == 40
