"""Whom a person attends to, frame by frame."""

from __future__ import annotations

from svp_stream.motion.attention import ATTENTIVE_S, Attention, Role


def test_roles_follow_who_speaks() -> None:
    attention = Attention()
    assert attention.step(False, False, 0.04) is Role.LISTENING, "somebody has just come"
    assert attention.step(True, False, 0.04) is Role.SPEAKING
    assert attention.step(True, True, 0.04) is Role.SPEAKING, "whoever speaks speaks, interrupted or not"
    assert attention.step(False, True, 0.04) is Role.LISTENING


def test_attention_fades_after_the_last_word_and_not_before() -> None:
    attention = Attention()
    for _ in range(1000):
        assert attention.step(False, True, 0.04) is Role.LISTENING
    roles = [attention.step(False, False, 0.04) for _ in range(200)]
    assert roles.count(Role.LISTENING) == round(ATTENTIVE_S / 0.04) - 1
    assert roles[-1] is Role.IDLE
    assert attention.step(False, True, 0.04) is Role.LISTENING
