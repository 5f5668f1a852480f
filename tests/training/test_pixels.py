"""What the denoiser's stages share: exact tokens, cross-fitted references, the weight of the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from svp_stream.diffusion.conditioner import expression_readout
from svp_stream.diffusion.vae import Autoencoder, AutoencoderConfig
from svp_stream.training.frames import to_tensors
from svp_stream.training.pixels import (
    WIDTH,
    cross_fitted,
    encode_frames,
    expression_tokens,
    geometries,
    loss_weight,
    pixel_data,
)
from tests.fakes.painted_faces import painted_frames

SIZE = 64


def autoencoder() -> Autoencoder:
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(widths=(16, 8, 8), depths=(1, 1, 1)))
    rgb, alpha = to_tensors(painted_frames(1, 8, SIZE).pixels)
    model.start_from_patches(rgb, alpha)
    model.measure_latents(rgb)
    return model.eval()


def eyes_at(x: float, y: float, distance: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """HEAD-Kps [1, 3, 2] in [0, 1] of a head straight on."""
    half = distance / 2
    return np.array([[[x - half, y], [x + half, y], [x, y + 0.5 * distance]]], np.float32)


def test_weight_is_heaviest_on_the_mouth() -> None:
    weight = loss_weight(eyes_at(0.5, 0.4, 0.2), 64)[0, 0].float().numpy()
    base = weight[2, 2]
    at = {name: weight[round(y * 64), 32] / base for name, y in
          {"mouth": 0.4 + 0.2, "eyes": 0.4, "nose": 0.4 + 0.2 * 0.5, "hair": 0.25}.items()}
    assert at == pytest.approx({"mouth": 4, "eyes": 3, "nose": 2, "hair": 1}, rel=1e-2)
    assert weight.mean() == pytest.approx(1, abs=1e-2)


def test_weight_follows_the_head() -> None:
    left, right = (loss_weight(eyes_at(x, 0.4, 0.2), 64)[0, 0].float().numpy() for x in (0.375, 0.625))
    np.testing.assert_allclose(left[:, 8:40], right[:, 24:56], rtol=1e-2)
    assert not np.allclose(left, right)


def test_weight_scales_with_the_head() -> None:
    shares = [float((w := loss_weight(eyes_at(0.5, 0.4, d), 64)[0, 0]).eq(w.max()).float().mean()) for d in (0.1, 0.2)]
    assert shares[1] / shares[0] == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize("given", [False, True])
def test_tokens_say_the_expression_exactly(given: bool) -> None:
    torch.manual_seed(0)
    speech, tokens = torch.rand(5, 42), torch.randn(5, 8, WIDTH)
    out = expression_tokens(speech, tokens if given else None)
    torch.testing.assert_close(expression_readout(WIDTH)(out[:, 0]), speech, rtol=1e-4, atol=1e-4)
    if given:
        torch.testing.assert_close(out[:, 1:], tokens[:, 1:], rtol=0, atol=0)
        again = expression_tokens(speech, out)
        torch.testing.assert_close(again, out, rtol=1e-4, atol=1e-4)


def test_without_tokens_the_rest_is_noise() -> None:
    speech = torch.rand(64, 42)
    a, b = expression_tokens(speech), expression_tokens(speech)
    assert not torch.equal(a, b)
    assert float(a[:, 1:].std()) == pytest.approx(1, abs=0.05)


def test_frames_are_encoded_once(tmp_path: Path) -> None:
    frames, model = painted_frames(2, 5, SIZE), autoencoder()
    first = encode_frames(model, frames, tmp_path)
    assert first.dtype == torch.float16 and first.shape == (10, 4, 8, 8)
    with torch.no_grad():
        truth = model.encode(to_tensors(frames.pixels)[0])
    assert float((first.float() - truth).abs().mean()) < 0.03
    (cache,) = tmp_path.iterdir()
    stamp = cache.stat().st_mtime_ns
    assert torch.equal(encode_frames(model, frames, tmp_path), first) and cache.stat().st_mtime_ns == stamp
    fewer = encode_frames(model, frames.select(np.arange(6)), tmp_path)
    assert len(fewer) == 6, "latents of other frames are not taken for these"
    with torch.no_grad():
        model.encoder.linear.weight.mul_(2)
    assert not torch.equal(encode_frames(model, frames, tmp_path), first), "nor those of another autoencoder"
    assert len(list(tmp_path.iterdir())) == 1, "what is of no more use is taken away"


def test_a_training_frame_is_no_part_of_its_own_reference() -> None:
    """The clip of a frame may hold anything: its own reference does not change, those of other clips do."""
    frames = painted_frames(3, 16, SIZE, held_out=1)
    torch.manual_seed(0)
    latents = torch.randn(48, 4, 2, 2).half()
    spoiled = latents.clone()
    spoiled[:16] += 9
    train = frames.split == "train"
    before, after = (cross_fitted(frames, x, train)[0] for x in (latents, spoiled))
    torch.testing.assert_close(after[:16], before[:16], rtol=0, atol=0)
    for other in (slice(16, 32), slice(32, 48)):
        assert float((after[other] - before[other]).abs().mean()) > 1


def test_held_out_frames_teach_nothing() -> None:
    frames = painted_frames(3, 16, SIZE, held_out=1)
    torch.manual_seed(0)
    latents = torch.randn(48, 4, 2, 2).half()
    spoiled = latents.clone()
    spoiled[32:] += 9
    train = frames.split == "train"
    (before, a), (after, b) = (cross_fitted(frames, x, train) for x in (latents, spoiled))
    assert torch.equal(before, after)
    np.testing.assert_array_equal(a["pat"].weights, b["pat"].weights)


def test_pixel_data(tmp_path: Path) -> None:
    frames = painted_frames(4, 24, SIZE)
    data, appearances = pixel_data(frames, autoencoder(), tmp_path)
    assert len(data) == 96 and list(appearances) == ["pat"]
    held = torch.from_numpy(frames.split != "train")
    latents, references = data.latents.float(), data.references.float()
    missed = (references - latents)[held].square().mean() / (latents[held] - latents.mean(0)).square().mean()
    assert float(missed) < 0.9, "on held-out frames the reference beats the mean picture"
    assert list(geometries(frames)) == ["pat"]
    assert np.abs(data.points - frames.kps / SIZE).max() < 0.01
    at = np.array([3, 50])
    tokens, style = torch.randn(2, 8, WIDTH), torch.randn(2, 4, WIDTH)
    c = data.conditions(at, tokens=tokens, style=style, previous=torch.zeros(2, 4, 8, 8), history=-torch.ones(2))
    assert c.kps.shape == (2, 11, 8, 8) and c.strength.tolist() == [1, 1]
    torch.testing.assert_close(c.reference, references[at], rtol=0, atol=0)
