"""The losses of the style prior: values, gradients, and that together they teach a small encoder its styles."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from svp_stream.style.distance import DistanceName, bhatt
from svp_stream.style.prior import PriorConfig, StylePrior, draw
from svp_stream.training.losses_style import (
    Temperature,
    calibration_loss,
    contrastive_loss,
    kl_to_standard,
    reconstruction_loss,
)

NAMES: list[DistanceName] = ["bhatt", "elk", "w2", "jeffreys"]


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(6, 4, generator=g), torch.randn(6, 4, generator=g), torch.tensor([0, 0, 1, 1, 1, 2])


def test_infonce_term_by_term() -> None:
    mu, log_var, labels = batch()
    logits = (-bhatt(mu, log_var, mu, log_var) / (4 * 0.2)).tolist()
    terms = []
    for i in range(5):
        others = [math.exp(logits[i][a]) for a in range(6) if a != i]
        friends = [p for p in range(6) if p != i and labels[p] == labels[i]]
        terms.append(-sum(math.log(math.exp(logits[i][p]) / sum(others)) for p in friends) / len(friends))
    assert float(contrastive_loss(mu, log_var, labels, "bhatt", 0.2)) == pytest.approx(sum(terms) / 5, rel=1e-5)


@pytest.mark.parametrize("distance", NAMES)
def test_gathered_styles_cost_less_and_gradients_are_finite(distance: DistanceName) -> None:
    labels = torch.arange(8) // 2
    centres = torch.eye(8).repeat_interleave(2, 0)[:8] * 5
    mu = (centres + 0.1 * torch.randn(8, 8, generator=torch.Generator().manual_seed(0))).requires_grad_()
    log_var = torch.full((8, 8), -1.0, requires_grad=True)
    right = contrastive_loss(mu, log_var, labels, distance)
    wrong = contrastive_loss(mu, log_var, labels.roll(1), distance)
    assert float(right.detach()) < float(wrong.detach())
    (right + wrong).backward()  # type: ignore[no-untyped-call]
    assert mu.grad is not None and bool(mu.grad.isfinite().all())
    assert log_var.grad is not None and bool(log_var.grad.isfinite().all())


def test_a_batch_without_pairs_is_refused() -> None:
    mu, log_var, _ = batch()
    with pytest.raises(ValueError, match="at least two clips"):
        contrastive_loss(mu, log_var, torch.arange(6))


def test_kl_is_torchs() -> None:
    mu, log_var, _ = batch()
    wanted = kl_divergence(Normal(mu, (log_var / 2).exp()), Normal(torch.zeros(4), torch.ones(4))).sum(1).mean()
    torch.testing.assert_close(kl_to_standard(mu, log_var), wanted)
    assert float(kl_to_standard(torch.zeros(2, 4), torch.zeros(2, 4))) == 0


def test_reconstruction_counts_only_the_frames_there_are() -> None:
    predicted, target = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    target[1, 2] = 100
    mask = torch.tensor([[True, True, True], [True, True, False]])
    assert float(reconstruction_loss(predicted, target, mask)) == 1
    assert float(reconstruction_loss(predicted, target)) == pytest.approx(105 / 6)


def test_temperature_is_learned_within_bounds() -> None:
    t = Temperature(0.1)
    assert t().item() == pytest.approx(0.1)
    for value, wanted in ((-10.0, 0.03), (3.0, 0.5)):
        torch.nn.init.constant_(t.log_value, value)
        assert t().item() == pytest.approx(wanted)
    with pytest.raises(ValueError, match="0.03 to 0.5"):
        Temperature(2.0)


def _clips(g: torch.Generator, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Expression follows the audio with a gain, and rests at a place, that are the style's own."""
    table = torch.Generator().manual_seed(99)
    gain, rest = torch.rand(4, 6, generator=table) * 2, torch.randn(4, 6, generator=table) * 0.3
    mix = torch.randn(5, 6, generator=table)
    audio = torch.randn(len(labels), 32, 5, generator=g)
    noise = 0.3 * torch.randn(len(labels), 32, 6, generator=g)
    return (audio @ mix) * gain[labels][:, None] + rest[labels][:, None] + noise, audio


def test_the_losses_teach_styles_that_other_words_are_spoken_in() -> None:
    torch.manual_seed(0)
    config = PriorConfig(expression_dim=6, audio_dim=5, width=32, layers=1, heads=2, style_dim=8, decoder_layers=1,
                         dropout=0.0)
    net, g, temperature = StylePrior(config), torch.Generator().manual_seed(3), Temperature()
    optimiser = torch.optim.AdamW([*net.parameters(), *temperature.parameters()], 3e-3)
    labels = torch.arange(16) % 4
    for _ in range(120):
        expression, audio = _clips(g, labels)
        mu, log_var = net.encoder(expression, audio)
        s = draw(mu, log_var, torch.randn(mu.shape, generator=g))
        # Clips i and i + 4 share a style and no words: the style of one must speak the words of the other.
        spoken = net.decoder(audio, s.roll(4, 0))
        loss = (contrastive_loss(mu, log_var, labels, "bhatt", temperature()) + 1e-3 * kl_to_standard(mu, log_var)
                + reconstruction_loss(spoken, net.encoder.standardise(expression)))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    net.eval()
    with torch.no_grad():
        expression, audio = _clips(g, labels)
        mu, log_var = net.encoder(expression, audio)
        d = bhatt(mu, log_var, mu, log_var) + torch.eye(16) * 1e9
        assert float((labels[d.argmin(1)] == labels).float().mean()) > 0.9
        right = reconstruction_loss(net.decoder(audio, mu.roll(4, 0)), expression)
        wrong = reconstruction_loss(net.decoder(audio, mu.roll(1, 0)), expression)
        assert float(right) < 0.7 * float(wrong)


def test_calibration_is_least_where_sigma_is_the_scatter() -> None:
    g = torch.Generator().manual_seed(0)
    scatter, labels = 0.3, torch.arange(200) // 4
    mu = torch.randn(50, 16, generator=g).repeat_interleave(4, 0) + scatter * torch.randn(200, 16, generator=g)
    told = {s: float(calibration_loss(mu, torch.full((200, 16), 2 * math.log(s)), labels))
            for s in (0.1, 0.2, 0.3, 0.45, 0.9)}
    assert min(told, key=lambda s: told[s]) == 0.3
    right = 0.5 * (1 + math.log(2 * math.pi * 2 * scatter**2))
    assert told[0.3] == pytest.approx(right, abs=0.03), "the entropy of a difference of two, by the dimension"


def test_calibration_moves_sigma_and_never_mu() -> None:
    mu, log_var, labels = batch()
    mu, log_var = mu.requires_grad_(), log_var.requires_grad_()
    calibration_loss(mu, log_var, labels).backward()  # type: ignore[no-untyped-call]
    assert mu.grad is None and log_var.grad is not None and float(log_var.grad[:5].abs().min()) > 0
    assert float(log_var.grad[5].abs().max()) == 0, "a clip without a partner tells nothing"
    with pytest.raises(ValueError, match="no two clips"):
        calibration_loss(mu, log_var, torch.arange(6))


def test_resolution_asks_styles_further_apart() -> None:
    """Shrinking means and sigmas together changes nothing, unless the contrast is blurred."""
    labels = torch.arange(8) // 2
    mu = torch.eye(8)[labels] + 0.05 * torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    log_var = torch.full((8, 8), 2 * math.log(0.3))

    def loss(scale: float, resolution: float) -> float:
        return float(contrastive_loss(scale * mu, log_var + 2 * math.log(scale), labels, "bhatt", 0.1, resolution))

    assert loss(0.1, 0.0) == pytest.approx(loss(1.0, 0.0), rel=1e-4)
    assert loss(0.1, 0.5) > loss(1.0, 0.5) + 0.3
