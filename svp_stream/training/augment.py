"""What rooms, microphones, networks and other people do to speech, as cheap array functions for training.

In: float32 mono at 16 kHz. Out: the same, worse. Remembers: nothing; every draw comes from the generator handed in.
Speed perturbation (pitch and formants together, Ko et al. 2015), reverberation, equaliser and band limits share one
pass through the frequency domain, which is what makes them nearly free on a CPU.
"""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.fft import irfft, next_fast_len, rfft

from svp_stream.clock import MODEL_RATE_HZ, WIRE_RATE_HZ
from svp_stream.packets import Float32

_FFT, _HOP, _LIFTER = 512, 128, 24
_WINDOW = np.sqrt(np.hanning(_FFT + 1)[:-1]).astype(np.float32)
_KNOTS_HZ = np.array([400.0, 1300.0, 2600.0, 4500.0])
LEAD = 4000
"""Samples in front of a crop that take up the wrap-around of the circular convolution (250 ms)."""


class AugmentConfig(BaseModel):
    """How often and how hard. Probabilities in [0, 1]; ranges are (low, high)."""

    model_config = ConfigDict(extra="forbid")

    speed: tuple[float, float] = (0.78, 1.28)
    speed_share: float = Field(0.8, ge=0, le=1)
    throat: float = Field(0.6, ge=0, le=1)
    throat_spread: float = Field(0.16, ge=0)
    reverb: float = Field(0.3, ge=0, le=1)
    reverb_rt60_s: tuple[float, float] = (0.08, 0.5)
    equaliser: float = Field(0.7, ge=0, le=1)
    equaliser_db: float = Field(6.0, ge=0)
    band_limit: float = Field(0.2, ge=0, le=1)
    band_stop: float = Field(0.35, ge=0, le=1)
    gap: float = Field(0.3, ge=0, le=1)
    noise: float = Field(0.6, ge=0, le=1)
    noise_snr_db: tuple[float, float] = (3.0, 35.0)
    opus: float = Field(0.3, ge=0, le=1)
    level_dbfs: tuple[float, float] = (-38.0, -12.0)


def input_length(samples: int, speed: float) -> int:
    """Samples to take from the source for `samples` out of `shape` at about this speed; never an odd number."""
    return int(next_fast_len(round(_padded(samples) * speed / 2))) * 2


def shape(source: Float32, samples: int, config: AugmentConfig, rng: np.random.Generator) -> Float32:
    """Source [input_length] to [samples]: resampled to fit, in a room, through a microphone.

    Output sample i shows source sample (i + LEAD) * len(source) / padded length.
    """
    padded = _padded(samples)
    spectrum = rfft(source)
    bins = padded // 2 + 1
    full = np.zeros(bins, np.complex64)
    kept = min(bins, len(spectrum))
    full[:kept] = spectrum[:kept] * np.float32(padded / len(source))
    if rng.random() < config.reverb:
        full *= rfft(room(rng, config.reverb_rt60_s), padded)
    full *= microphone(bins, config, rng)
    return np.asarray(irfft(full, padded)[LEAD : LEAD + samples], np.float32)


def source_position(index: NDArray[np.float64], samples: int, taken: int) -> NDArray[np.float64]:
    """Where output positions of `shape` lie in its source, in samples."""
    return (index + LEAD) * (taken / _padded(samples))


def _padded(samples: int) -> int:
    return int(next_fast_len((samples + LEAD + 1) // 2)) * 2


def room(rng: np.random.Generator, rt60_s: tuple[float, float]) -> Float32:
    """Impulse response: the direct sound and an exponentially decaying tail of noise (Polack's model)."""
    rt60 = rng.uniform(*rt60_s)
    n = min(int(rt60 * MODEL_RATE_HZ), LEAD)
    decay = np.exp(-6.9 * np.arange(n, dtype=np.float32) / (rt60 * MODEL_RATE_HZ))
    tail = rng.standard_normal(n, dtype=np.float32) * decay
    onset = int(rng.uniform(0.001, 0.01) * MODEL_RATE_HZ)
    tail[:onset] = 0.0
    ratio_db = rng.uniform(-2.0, 15.0)
    tail *= np.float32(10 ** (-ratio_db / 20) / np.sqrt(np.sum(tail**2) + 1e-9))
    tail[0] = 1.0
    return np.asarray(tail, np.float32)


def microphone(bins: int, config: AugmentConfig, rng: np.random.Generator) -> Float32:
    """Gain for each frequency bin: gentle random equaliser, sometimes the band of a telephone or a cheap headset,
    sometimes a band missing (no single formant may be relied on)."""
    hz = np.linspace(0, MODEL_RATE_HZ / 2, bins, dtype=np.float32)
    gain_db = np.zeros(bins, np.float32)
    if rng.random() < config.equaliser:
        knots_hz = np.array([0.0, 200.0, 500.0, 1200.0, 2500.0, 4500.0, 8000.0])
        gain_db += np.interp(hz, knots_hz, rng.uniform(-config.equaliser_db, config.equaliser_db, len(knots_hz)))
    gain = 10 ** (gain_db / 20)
    if rng.random() < config.band_limit:
        low, high = rng.uniform(60, 320), rng.uniform(3200, 7000)
        gain /= np.sqrt(1 + (low / np.maximum(hz, 1.0)) ** 8) * np.sqrt(1 + (hz / high) ** 16)
    if rng.random() < config.band_stop:
        centre, half = rng.uniform(200, 6000), rng.uniform(100, 500)
        gain[np.abs(hz - centre) < half] *= 0.05
    return np.asarray(gain, np.float32)


def throat(samples: Float32, spread: float, rng: np.random.Generator) -> Float32:
    """The same words from another vocal tract: formants moved, pitch and tempo kept.

    The spectral envelope (cepstrum below 1.5 ms) is read off a frequency axis bent at four knots by factors of up to
    1 + `spread` either way: vocal tract length perturbation (Jaitly & Hinton 2013), one factor for each formant.
    """
    frames = 1 + -(-len(samples) // _HOP)
    padded = np.pad(samples, (_FFT, frames * _HOP + _FFT))
    starts = np.arange(0, len(padded) - _FFT + 1, _HOP)
    spectra = rfft(padded[starts[:, None] + np.arange(_FFT)] * _WINDOW, axis=1)
    cepstra = irfft(np.log(np.abs(spectra) + 1e-5), axis=1)
    cepstra[:, _LIFTER:-_LIFTER] = 0.0
    envelope = np.asarray(rfft(cepstra, axis=1).real)
    bins = np.arange(_FFT // 2 + 1)
    factors = np.exp(rng.uniform(-1, 1, len(_KNOTS_HZ)) * np.log1p(spread))
    bent = bins * np.interp(bins * MODEL_RATE_HZ / _FFT, _KNOTS_HZ, factors)
    low = np.minimum(bent.astype(np.int64), len(bins) - 2)
    part = np.clip(bent - low, 0, 1)
    moved = envelope[:, low] * (1 - part) + envelope[:, low + 1] * part
    spectra *= np.exp(np.clip(moved - envelope, -3.0, 3.0))
    pieces = irfft(spectra, axis=1) * (_WINDOW * np.float32(2 * _HOP / _FFT))
    out = np.zeros(len(padded), np.float32)
    for phase in range(_FFT // _HOP):
        row = pieces[phase :: _FFT // _HOP].ravel()
        out[phase * _HOP : phase * _HOP + len(row)] += row
    return out[_FFT : _FFT + len(samples)]


def gap(samples: Float32, rng: np.random.Generator) -> Float32:
    """One or two lost packets of 20 to 60 ms: what is said must be told from what surrounds it (SpecAugment's idea)."""
    out = samples.copy()
    for _ in range(int(rng.integers(1, 3))):
        length = int(rng.uniform(0.02, 0.06) * MODEL_RATE_HZ)
        start = int(rng.integers(max(1, len(out) - length)))
        out[start : start + length] = 0.0
    return out


def noise(samples: int, rng: np.random.Generator) -> Float32:
    """Unit-power noise whose spectrum falls by 0 (white) to 6 dB an octave, pulsating a little."""
    n = int(next_fast_len(samples))
    spectrum = rfft(rng.standard_normal(n, dtype=np.float32))
    spectrum *= (np.arange(1, len(spectrum) + 1, dtype=np.float32)) ** np.float32(-rng.uniform(0.0, 1.0))
    spectrum[:4] = 0
    out = irfft(spectrum, n)[:samples]
    return np.asarray(out / (np.sqrt(np.mean(out**2)) + 1e-9), np.float32)


def mix(speech: Float32, disturbance: Float32, snr_db: float) -> Float32:
    """Add `disturbance` at this ratio to the loud half of the speech; silence gets it at -60 dBFS and the ratio."""
    power = float(np.mean(speech**2)) * 2 + 1e-6
    unit = disturbance / np.float32(np.sqrt(np.mean(disturbance**2) + 1e-12))
    return np.asarray(speech + unit * np.float32(np.sqrt(power) * 10 ** (-snr_db / 20)), np.float32)


def level(samples: Float32, config: AugmentConfig, rng: np.random.Generator) -> Float32:
    """To a random level, in a third of the cases with a step in it, clipped at full scale as converters do."""
    rms = float(np.sqrt(np.mean(samples**2))) + 1e-4
    gain = np.full(len(samples), 10 ** (rng.uniform(*config.level_dbfs) / 20) / rms, np.float32)
    if rng.random() < 1 / 3:
        gain[int(rng.integers(len(samples))) :] *= np.float32(10 ** (rng.uniform(-12, 12) / 20))
    return np.asarray(np.clip(samples * gain, -1, 1), np.float32)


def opus(samples: Float32, kbps: int) -> Float32:
    """There and back through libopus (VoIP), same length, delay taken out by correlation."""
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = MODEL_RATE_HZ, "mono", "s16"
    encoder.bit_rate = kbps * 1000
    encoder.options = {"application": "voip", "frame_duration": "20"}
    encoder.open()
    decoder = av.CodecContext.create("libopus", "r")
    resampler = av.AudioResampler("s16", "mono", MODEL_RATE_HZ)
    pcm = np.round(np.clip(np.pad(samples, (0, 1600)), -1, 1) * 32767).astype(np.int16)
    packets = []
    for start in range(0, len(pcm) - 319, 320):
        frame = av.AudioFrame.from_ndarray(pcm[None, start : start + 320], "s16", "mono")
        frame.sample_rate, frame.pts = MODEL_RATE_HZ, start
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    pieces = []
    for packet in packets:
        plain = av.Packet(bytes(packet))  # without time stamps: the decoder would trim by them
        for decoded in decoder.decode(plain):
            decoded.sample_rate = decoded.sample_rate or WIRE_RATE_HZ
            decoded.pts = None
            pieces += [f.to_ndarray()[0] for f in resampler.resample(decoded)]
    back = np.concatenate(pieces).astype(np.float32) / 32767
    return _aligned(np.asarray(back, np.float32), samples)


def _aligned(late: Float32, reference: Float32) -> Float32:
    """`late` shifted by the delay (0 to 40 ms) where it agrees best with `reference`, at its length."""
    n = len(reference)
    padded = int(next_fast_len(n + 1000))
    late = np.pad(late, (0, max(0, padded - len(late))))[:padded]
    correlation = irfft(rfft(late) * np.conj(rfft(reference, padded)), padded)[:640]
    delay = int(np.argmax(correlation))
    return np.asarray(np.pad(late[delay:], (0, n))[:n], np.float32)
