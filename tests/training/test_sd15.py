"""Style prior and the four sd15 stages on a tiny random Stable Diffusion over a painted corpus, by files and folders:
they learn, and what they write serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import yaml

from svp_stream.audio.wav2vec_rolling import measure_statistics, save_statistics
from svp_stream.config import CONFIGS, load_yaml
from svp_stream.diffusion.sd15 import Sd15
from svp_stream.diffusion.sd15_folder import Folder
from svp_stream.errors import ConfigError, MediaError, WeightsError
from svp_stream.motion import kps
from svp_stream.motion.manner import Manner
from svp_stream.packets import AudioChunk
from svp_stream.pipeline import build
from svp_stream.pipeline.engine import StyleRequest
from svp_stream.pipeline.sd15 import Sd15Engine
from svp_stream.style.preset import load_preset
from svp_stream.style.projection import ProjectionConfig, StyleProjection
from svp_stream.synthetic import sidecar
from svp_stream.synthetic.video import ClipWriter, read_pictures
from svp_stream.training import sd15_losses as losses
from svp_stream.training.loop import LoopConfig, run_stage
from svp_stream.training.sd15_model import Trained
from svp_stream.training.sd15_run import STAGES, Sd15Profile, Workshop, _first, default_profile, run_sd15
from svp_stream.training.style_prior import StylePriorStage, StylePriorTrainConfig
from svp_stream.weights_file import sha256
from tests.fakes import painted_faces
from tests.fakes.coefficients import tiny_bank
from tests.fakes.tiny_sd15 import CONFIG, tiny_unet, tiny_vae, tiny_wav2vec2
from tests.laws.stages import voice

SIZE, FRAMES = 64, 24
STEPS = {"image": 40, "video": 10, "consistency": 6, "rollout": 4}
PRIOR = StylePriorTrainConfig.model_validate({
    "loop": {"steps": 12, "batch": 4, "lr": 3e-3, "warmup": 2, "ema": 0.5, "precision": "fp32", "threads": 1,
             "log_every_s": 0, "tensorboard": False},
    "width": 16, "layers": 1, "style_dim": 16, "decoder_layers": 1, "frames": 24, "takes": 3, "manner_styles": 20,
})  # fmt: skip


def write_corpus(folder: Path) -> None:
    """Three clips of one painted person, one of them held out."""
    folder.mkdir()
    for i in range(3):
        pose, expression = painted_faces.course(FRAMES, i)
        pixels = painted_faces.paint(pose, expression, SIZE)
        content: dict[str, Any] = {
            "expression": expression, "pose": pose, "stress": np.zeros(FRAMES, np.float32),
            "style_vector": np.zeros(4, np.float32), "manner": Manner().vector(),
            "audio": (voice(i, 16_000, FRAMES / 25) * 32000).astype(np.int16),
            "kps": (kps.project_batch(painted_faces.HEAD, pose) * SIZE).astype(np.float32),
            "landmarks": np.zeros((FRAMES, 5, 2), np.float32),
        }  # fmt: skip
        with ClipWriter(folder / f"c{i}.mp4", SIZE, 4, 4) as writer:
            for p in pixels:
                writer.add(p[..., :3], p[..., 3])
            writer.sound(content["audio"])
        split = "heldout" if i == 2 else "train"
        words = {"style": "warm", "voice": "slt", "text": "Hi.", "avatar": "ann", "split": split}
        sidecar.write(folder / f"c{i}.npz", content, words, i, (sidecar.Sound("pau", 0.0, FRAMES / 25, 0),))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpus/, base/, wav2vec2/ with its statistics, a trained prior with its ears, and a profile for each stage."""
    place = tmp_path_factory.mktemp("sd15-train")
    write_corpus(place / "corpus")
    tiny_unet().save_pretrained(place / "base" / "unet")
    vae = tiny_vae()
    pixels = painted_faces.paint(*painted_faces.course(8, 5), SIZE)[..., :3]
    with torch.no_grad():
        picture = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        vae.register_to_config(scaling_factor=1 / float(vae.encode(picture).latent_dist.mean.std()))
    vae.save_pretrained(place / "base" / "vae")
    wav2vec2 = tiny_wav2vec2("group")
    wav2vec2.save_pretrained(place / "wav2vec2")
    save_statistics(place / "norm.safetensors", measure_statistics(wav2vec2, [voice(3, 16_000, 1.0)]))
    torch.manual_seed(0)
    run_stage(StylePriorStage(PRIOR, tiny_bank(place / "audio")), PRIOR.loop, place / "style-prior")
    for kind, steps in STEPS.items():
        (place / f"{kind}.yaml").write_text(yaml.safe_dump(profile(place, kind, steps).model_dump(mode="json")))
    return place


def profile(place: Path, kind: Any, steps: int) -> Sd15Profile:
    told = {
        "base": str(place / "base"), "style_prior": str(place / "style-prior" / "style_prior.safetensors"),
        "style_ears": str(place / "audio" / "audio_encoder.safetensors"), "style_tokens": 4, "size": SIZE,
        "audio": {"model": str(place / "wav2vec2"), "norm": str(place / "norm.safetensors"), "window": 8,
                  "look_ahead": 1},
        "graft": {"kps_channels": [4, 4, 8, 8], "temporal_window": 3, "temporal_heads": 2, "reference": "own",
                  "temporal_levels": [0, 1], "tuned": [""]},
        "projection": {"dim": 16, "depth": 1, "heads": 2, "head_dim": 8, "feed": 2},
    }  # fmt: skip
    loop = LoopConfig(steps=steps, batch=4, lr=4e-3, warmup=3, ema=0.9, precision="fp32", log_every_s=0,
                      sheet_every_s=900, checkpoint_every_s=900, final_lr=0.3)
    return Sd15Profile(kind=kind, loop=loop, frames=1 if kind == "image" else 3, checkpointing=kind == "video",
                       film_frames=8, film_steps=4, parts=told)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_all_stages_learn_and_what_they_write_serves(workplace: Path, tmp_path: Path) -> None:
    prior = [r["loss"] for r in rows(workplace / "style-prior") if "loss" in r]
    assert np.mean(prior[-4:]) < np.mean(prior[:4])
    began: dict[str, float] = {}
    for stage in STAGES:
        kind = stage.removeprefix("sd15-")
        folder = run_sd15(stage, workplace / f"{kind}.yaml", workplace / "corpus", tmp_path)
        told = rows(folder)
        if kind == "image":
            run = Workshop(Folder.open(tmp_path / "sd15-start"), profile(workplace, "image", 1), workplace / "corpus")
            with torch.no_grad():
                began = run.stage().validate(run.stage().model.eval())
            losses_seen = [r["loss"] for r in told if "loss" in r]
            assert np.mean(losses_seen[-10:]) < 0.8 * np.mean(losses_seen[:5])
            assert told[-1]["cold_error"] < 0.8 * began["cold_error"]
        assert all(np.isfinite(v) for r in told for v in r.values())
        assert list((folder / "sheets").glob("*.png")) and list((folder / "tensorboard").iterdir())
        (film,) = (folder / "films").glob("*.mp4")
        assert read_pictures(film, None).shape == (8, SIZE, 2 * SIZE, 3)
        assert Folder.open(folder).card.sampling.kind == ("few" if kind in ("consistency", "rollout") else "ddim")
    assert told[-1]["warm_error"] < 0.7 * began["warm_error"], "warm frames are better for all of it"
    assert told[-1]["rolled_error"] < 0.85 * began["rolled_error"], "and so are clips"

    engine = Sd15Engine.load(tmp_path / "sd15-rollout", "cpu", 1)
    assert engine.avatars == ("ann",) and engine.prior == sha256(workplace / "style-prior" / "style_prior.safetensors")
    warm = load_preset(tmp_path / "sd15-rollout" / "styles" / "warm.npz", prior=engine.prior)
    face = engine.stream(avatar="ann", style=StyleRequest("warm", warm.mu, warm.log_var), seed=0)
    frames = face.push(AudioChunk(0, voice(9, 16_000, 0.4), 16_000)) + face.flush()
    assert len(frames) == 10 and frames[-1].rgb.shape == (SIZE, SIZE, 3)


def test_checkpoints_leave_out_the_base() -> None:
    model = Trained(Sd15(tiny_unet(), CONFIG), StyleProjection(ProjectionConfig(16, 4, 16)), ("temporal", "style"))
    kept = model.state_dict()
    assert any(k.startswith("projection.") for k in kept) and any("temporal" in k for k in kept)
    assert not any(".unet." in k or "guider" in k or "reference_net" in k for k in kept)


def test_a_film_shows_the_truth_beside_what_is_made(workplace: Path, tmp_path: Path) -> None:
    """The left half is the held-out clip as the autoencoder gives it back, in sound and picture; the right is not."""
    config = profile(workplace, "rollout", 1)
    shop = Workshop(_first(profile(workplace, "image", 1), tmp_path), config, workplace / "corpus")
    stage = shop.stage()
    with torch.no_grad():
        stage.film(stage.model.eval(), tmp_path / "f.mp4")
    pictures = read_pictures(tmp_path / "f.mp4", None).mean(3)  # colours are at half the size
    (held,) = (c for c in shop.read if c.held_out)
    truth = np.stack([shop.decode(z[None].float()) for z in held.latents[1:9]]).mean(3)
    left, right = (float(np.abs(half - truth).mean()) for half in np.split(pictures, 2, axis=2))
    assert left < 0.5 * right and left < 5, (left, right)
    with av.open(str(tmp_path / "f.mp4")) as film:
        sound = np.concatenate([f.to_ndarray()[0] for f in film.decode(audio=0)])[: 8 * 640]
    heard = held.sound[640 : 9 * 640].astype(np.float32)
    lags = np.correlate(heard, sound.astype(np.float32), "full")
    assert abs(int(lags.argmax()) - (len(sound) - 1)) <= 2048 and np.corrcoef(heard, np.roll(
        sound, int(lags.argmax()) - (len(sound) - 1)))[0, 1] > 0.6


def test_what_is_missing_is_named(workplace: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="sd15-image"):
        run_sd15("sd15-video", workplace / "video.yaml", workplace / "corpus", tmp_path)
    other = profile(workplace, "image", 1).model_dump(mode="json")
    other["parts"]["style_prior"] = None
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(WeightsError, match="style_prior.safetensors are missing"):
        run_sd15("sd15-image", tmp_path / "p.yaml", workplace / "corpus", tmp_path)
    deaf = profile(workplace, "image", 1).model_dump(mode="json")
    deaf["parts"]["style_ears"] = None
    (tmp_path / "d.yaml").write_text(yaml.safe_dump(deaf))
    with pytest.raises(WeightsError, match="reads audio of 16 numbers.*gives 24.*parts.style_ears"):
        run_sd15("sd15-image", tmp_path / "d.yaml", workplace / "corpus", tmp_path / "deaf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no training stage 'sd15-x'"):
        run_sd15("sd15-x", None, workplace / "corpus", tmp_path)
    with pytest.raises(ConfigError, match="profile of the stage sd15-video, not of sd15-image"):
        run_sd15("sd15-image", workplace / "video.yaml", workplace / "corpus", tmp_path)
    with pytest.raises(MediaError, match="no clip to train on"):
        run_sd15("sd15-image", workplace / "image.yaml", tmp_path / "empty", tmp_path / "o")


def test_losses_in_closed_form() -> None:
    torch.manual_seed(0)
    x0, noise = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8)
    t = torch.tensor([1, 300, 700, 999])
    x_t = losses.noised(x0, noise, t)
    torch.testing.assert_close(losses.estimate(x_t, losses.velocity(x_t, x0, t), t), x0, rtol=0, atol=1e-5)
    usual = losses.at(losses.ALPHA, t) * noise - losses.at(losses.SIGMA, t) * x0
    torch.testing.assert_close(losses.velocity(x_t, x0, t)[1:], usual[1:], rtol=1e-3, atol=1e-4)
    weight = losses.min_snr(t, 5.0).flatten()
    assert weight[-1] == losses.FLOOR and weight.max() <= 1
    assert (losses.earlier(t, 0) == 0).all() and (losses.earlier(t, 3) < t).all()
    assert (losses.earlier(t[1:], 5) >= losses.earlier(t[1:], 3)).all()
    assert losses.pseudo_huber(torch.zeros(2, 4, 8, 8)).abs().max() < 1e-6
    past, level = losses.corrupted(x0, 0.3, 0.25, 1.0)
    assert not past.any() and (level == -1).all()
    past, level = losses.corrupted(x0, 0.0, 0.0, 0.0)
    assert torch.equal(past, x0) and not level.any()


@pytest.mark.parametrize("stage", STAGES)
def test_the_shipped_profiles(stage: str) -> None:
    found = load_yaml(CONFIGS / "train" / f"{stage}.yaml", Sd15Profile)
    assert f"sd15-{found.kind}" == stage and found == default_profile(found.kind)
    assert build.ENGINES[-1] == "sd15"
