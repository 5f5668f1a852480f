"""The audio stage learns on a tape of tones in seconds, its tape tells the truth at every position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from svp_stream.arkit import SPEECH, SPEECH_INDEX
from svp_stream.audio.wav2vec import EncoderConfig, load_encoder
from svp_stream.clock import MODEL_RATE_HZ
from svp_stream.errors import MediaError
from svp_stream.packets import Float32
from svp_stream.training import augment
from svp_stream.training.audio import WEIGHTS_NAME, AudioStage, AudioTrainConfig
from svp_stream.training.augment import AugmentConfig
from svp_stream.training.loop import LoopConfig, run_stage
from svp_stream.training.mel import LogMel
from svp_stream.training.speech_tape import FRAME_SAMPLES, SILENCE, SYMBOLS, LabelledClip, Tape, join

TONES = {"aa": 400.0, "iy": 1300.0, "s": 4000.0}
SMALL = EncoderConfig(
    channels=(16,) * 7, width=32, layers=1, heads=2, feedforward=64, position_kernel=4, position_groups=2,
    left_context=10,
)
PROFILE = Path(__file__).parents[2] / "configs" / "train" / "audio.yaml"


def _clip(seed: int, sounds: int = 20) -> LabelledClip:
    """Tones of 120 ms between short silences; the jaw follows the vowel 'aa'."""
    rng = np.random.default_rng(seed)
    names = [["pau", *TONES][int(i)] for i in rng.integers(0, 4, sounds)]
    t = np.arange(1920) / MODEL_RATE_HZ
    parts = [0.2 * np.sin(2 * np.pi * TONES[n] * t) if n in TONES else np.zeros(1920) for n in names]
    samples = np.concatenate(parts).astype(np.float32) + rng.normal(0, 0.003, 1920 * sounds).astype(np.float32)
    expression = np.zeros((3 * sounds, len(SPEECH)), np.float32)
    expression[:, SPEECH_INDEX["jawOpen"]] = np.repeat([0.6 * (n == "aa") for n in names], 3)
    return LabelledClip(samples, tuple((n, 0.12 * (i + 1)) for i, n in enumerate(names)), expression, "tone", "plain")


def _tape(seed: int, clips: int = 6, opus: float = 0.0) -> Tape:
    return join((_clip(seed + i) for i in range(clips)), opus, seed)


def _config(steps: int) -> AudioTrainConfig:
    loop = LoopConfig(steps=steps, batch=8, lr=4e-3, warmup=5, ema=0.9, threads=0, log_every_s=60, sheet_every_s=600)
    kind = AugmentConfig(opus=0.2, throat=0, band_stop=0, gap=0)
    return AudioTrainConfig(loop=loop, encoder=SMALL, crop_frames=12, augment=kind)


def test_training_learns_and_exports(tmp_path: Path) -> None:
    stage = AudioStage(_config(160), _tape(0, opus=0.5), _tape(100, 3))
    with torch.no_grad():
        before = stage.validate(stage.model.eval())
    run_stage(stage, _config(160).loop, tmp_path)
    with torch.no_grad():
        after = stage.validate(stage.model.eval())
    assert after["phoneme"] > max(0.7, before["phoneme"] + 0.3)
    assert after["jaw_r"] > 0.6
    assert load_encoder(tmp_path / WEIGHTS_NAME).config == SMALL
    assert list((tmp_path / "sheets").glob("*.png"))


def test_going_on_from_an_encoder_moves_the_encoder(tmp_path: Path) -> None:
    stage = AudioStage(_config(1), _tape(0), _tape(100, 2))
    stage.export(stage.model, tmp_path)
    goes_on = AudioStage(_config(2).model_copy(update={"start": tmp_path / WEIGHTS_NAME}), _tape(0), _tape(100, 2))
    before = {k: v.clone() for k, v in goes_on.model.encoder.state_dict().items()}
    run_stage(goes_on, _config(2).loop, tmp_path / "run")
    after = goes_on.model.encoder.state_dict()
    assert not [k for k, v in before.items() if v.is_floating_point() and v.abs().max() > 0 and v.equal(after[k])]


def test_batches_hang_on_the_generator_alone() -> None:
    stage = AudioStage(_config(1), _tape(0), _tape(100, 2))
    one, two = (stage.batch(np.random.default_rng(5), 3) for _ in range(2))
    assert {k: tuple(v.shape) for k, v in one.items()} == {
        "wav": (3, 12 * 640 + 80), "phonemes": (3, 24), "expression": (3, 12, 42), "condition": (3, 12, 84),
    }
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert float(one["wav"].abs().max()) <= 1.0


def test_learning_leaves_the_batches_as_they_were() -> None:
    """A resumed run draws the same batches: nothing but the generator may decide."""
    stage = AudioStage(_config(1), _tape(0), _tape(100, 2))
    quiet = stage.batch(np.random.default_rng(5), 3)
    stage.loss(stage.model, quiet, 1.0)
    assert all(torch.equal(v, quiet[k]) for k, v in stage.batch(np.random.default_rng(5), 3).items())


def test_tape_tells_what_is_true_at_a_position(tmp_path: Path) -> None:
    clip = _clip(3)
    tape = join([_clip(2), clip], 0.0, 0)
    offset = len(_clip(2).samples)
    position = offset + (np.arange(len(clip.spans), dtype=np.float64) + 0.5) * 1920
    assert [SYMBOLS[i] for i in tape.symbols_at(position)] == [symbol for symbol, _ in clip.spans]
    assert tape.symbols_at(np.array([-1.0, 1e9])).tolist() == [SILENCE, SILENCE]
    middles: NDArray[np.float64] = offset + (np.arange(len(clip.expression), dtype=np.float64) + 0.5) * FRAME_SAMPLES
    face, condition = tape.expression_at(middles)
    np.testing.assert_allclose(face[:-1], clip.expression[:-1], atol=1e-6)
    crude = np.concatenate([clip.expression.mean(0), clip.expression.std(0)])
    np.testing.assert_allclose(condition[5], crude, rtol=1e-5)
    tape.save(tmp_path / "tape.npz")
    assert np.array_equal(Tape.open(tmp_path / "tape.npz").sound, tape.sound)
    (tmp_path / "tape.npz").write_bytes(b"no")
    with pytest.raises(MediaError, match="delete it"):
        Tape.open(tmp_path / "tape.npz")


def test_wrong_clips_are_told() -> None:
    clip = _clip(0)
    with pytest.raises(MediaError, match="unknown phoneme 'qq'"):
        join([LabelledClip(clip.samples, (("qq", 1.0),), clip.expression, "v", "s")], 0.0, 0)
    with pytest.raises(MediaError, match="samples for"):
        join([LabelledClip(clip.samples[:-1], clip.spans, clip.expression, "v", "s")], 0.0, 0)
    with pytest.raises(MediaError, match="no clip"):
        join([], 0.0, 0)


def _click(at: int, n: int) -> Float32:
    x = np.zeros(n, np.float32)
    x[at - 40 : at + 40] = np.hanning(80)
    return x


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_targets_follow_the_sound_through_a_change_of_speed(speed: float) -> None:
    samples, plain = 16000, AugmentConfig(reverb=0, equaliser=0, band_limit=0, band_stop=0)
    taken = augment.input_length(samples, speed)
    out = augment.shape(_click(9000, taken), samples, plain, np.random.default_rng(0))
    position = augment.source_position(np.arange(samples, dtype=np.float64), samples, taken)
    assert abs(taken / augment.input_length(samples, 1.0) - speed) < 0.02
    assert abs(position[int(np.argmax(out))] - 9000) < 3


def _buzz(formant_hz: float) -> Float32:
    """A second of a 120 Hz voice with one formant."""
    t = np.arange(16000) / 16000
    wave = sum(np.sin(2 * np.pi * 120 * k * t) / (1 + ((120 * k - formant_hz) / 120) ** 2) for k in range(1, 60))
    return np.asarray(0.1 * wave, np.float32)


def _peaks(x: Float32) -> tuple[float, float]:
    """Pitch by autocorrelation, and the centre of the spectrum's power, in Hz."""
    spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x)))) ** 2
    again = np.fft.irfft(spectrum)[40:400]
    return 16000 / (40 + float(np.argmax(again))), float((spectrum * np.arange(len(spectrum))).sum() / spectrum.sum())


def test_another_throat_moves_the_formants_and_keeps_the_pitch() -> None:
    voice = _buzz(1300.0)
    pitch, centre = _peaks(voice)
    moved = [_peaks(augment.throat(voice, 0.2, np.random.default_rng(seed))) for seed in range(8)]
    assert all(abs(p - pitch) < 4 for p, _ in moved)
    assert max(c for _, c in moved) > centre + 60 and min(c for _, c in moved) < centre - 60
    same = augment.throat(voice, 0.0, np.random.default_rng(0))
    np.testing.assert_allclose(same[600:-600], voice[600:-600], atol=2e-3)


def test_a_room_rings_and_a_mix_has_its_ratio() -> None:
    rng = np.random.default_rng(1)
    tail = augment.room(rng, (0.3, 0.3))
    assert tail[0] == 1.0 and np.std(tail[3000:]) < 0.1 * np.std(tail[200:1000])
    speech = rng.standard_normal(16000).astype(np.float32)
    noise = augment.mix(speech, augment.noise(16000, rng), 10.0) - speech
    assert abs(10 * np.log10(2 * np.mean(speech**2) / np.mean(noise**2)) - 10) < 0.1
    levelled = augment.level(speech * 1e-3, AugmentConfig(level_dbfs=(-20, -20)), np.random.default_rng(0))
    assert 0.02 < float(np.std(levelled)) < 0.5


def test_opus_keeps_time_and_length() -> None:
    samples = _clip(7).samples
    back = augment.opus(samples, 24)
    assert len(back) == len(samples)
    assert np.corrcoef(back, samples)[0, 1] > 0.8
    assert abs(int(np.argmax(np.correlate(back[1000:9000], samples[2000:8000], "valid"))) - 1000) <= 1


def test_mel_stands_on_the_grid_of_the_encoder() -> None:
    wav = torch.zeros(1, 320 * 10 + 80)
    wav[0, 320 * 4 + 200] = 1.0
    mel = LogMel()(wav)
    assert mel.shape == (1, 10, 40)
    assert int(mel.mean(-1).argmax()) == 4


def test_the_shipped_profile_is_understood() -> None:
    config = AudioTrainConfig.model_validate(yaml.safe_load(PROFILE.read_text()))
    assert config == AudioTrainConfig(), "the profile and the code's defaults differ"
    with pytest.raises(ValueError, match="extra_forbidden|not permitted"):
        AudioTrainConfig.model_validate({"tape": {"hours": 3}})
    with pytest.raises(ValueError, match="whole number of chunks"):
        AudioTrainConfig.model_validate({"encoder": {"left_context": 3}})
