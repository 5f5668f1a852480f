"""Offers and fragments from anybody: every input is read or refused in words, and what is read writes back."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest
from aiortc.sdp import candidate_from_sdp
from hypothesis import given, settings
from hypothesis import strategies as st

from server.whip import (
    Candidate,
    Fragment,
    Offer,
    WhipError,
    accepts,
    completed,
    parse_call,
    parse_fragment,
    parse_offer,
    parse_whep,
    parse_whip,
    write_fragment,
)
from tests.server.test_whip import HOST, MDNS, OFFER, SIX, SRFLX

TOKENS = [
    "a=candidate:" + HOST, "a=mid:0", "a=mid:", "a=ice-ufrag:", "a=", "m=", "m=video 9 UDP/TLS/RTP/SAVPF", "\r\n", "\n",
    "a=setup:active", "a=setup:", "v=0", "=", "\0", "é", " ", "a=fingerprint:", "a=end-of-candidates", "99999999999999",
]  # fmt: skip


def offered(body: bytes, parse: Callable[[bytes], Offer] = parse_offer) -> Offer | None:
    """The offer, or None when it was refused as it should be."""
    try:
        return parse(body)
    except WhipError as error:
        assert error.status in (400, 413, 422) and str(error)
        return None


def mutated(text: str, rng: random.Random) -> str:
    """A few cuts, doublings and insertions."""
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(4):
            case 0:
                text = text[:at] + rng.choice(TOKENS) + text[at:]
            case 1:
                text = text[:at] + text[at + rng.randint(1, 40) :]
            case 2:
                lines = text.splitlines(keepends=True) or [""]
                i = rng.randrange(len(lines))
                lines.insert(i, lines[i])
                text = "".join(lines)
            case _:
                text = text[:at] + chr(rng.randrange(1, 0x250)) + text[at + 1 :]
    return text


@pytest.mark.parametrize("seed", range(20))
def test_mutated_offers(seed: int) -> None:
    rng = random.Random(seed)
    read = 0
    for _ in range(100):
        offer = offered(mutated(OFFER, rng).encode("utf-8", "surrogatepass"))
        if offer is not None:
            read += 1
            assert offer.sections and all(s.ufrag and s.mid for s in offer.sections)
    assert read > 0, "mutations that change nothing of weight are taken"


@pytest.mark.parametrize("parse", [parse_call, parse_whip, parse_whep])
@pytest.mark.parametrize("seed", range(10))
def test_mutated_offers_of_each_kind_are_answered_section_by_section(
    seed: int, parse: Callable[[bytes], Offer]
) -> None:
    rng = random.Random(seed)
    directions = ["a=sendrecv", "a=recvonly", "a=sendonly", "a=inactive"]
    read = 0
    for _ in range(100):
        text = re.sub("a=(sendrecv|recvonly)", lambda _: rng.choice(directions), OFFER)
        text = text.replace("m=audio", rng.choice(["m=audio", "m=text", "m=video"]))
        body = mutated(text, rng).encode("utf-8", "surrogatepass")
        whole, offer = offered(body), offered(body, parse)
        if whole is None or offer is None:
            continue
        read += 1
        again = parse_offer(offer.sdp.encode())
        assert [s.mid for s in again.sections] == [s.mid for s in offer.sections] and offer.sections
        answer = parse_offer(completed(offer.sdp, offer).encode()) if not has_port_0(offer) else None
        if answer is not None:
            assert [s.mid for s in answer.sections] == [s.mid for s in whole.sections], "each at its place"
    assert read > 0


def has_port_0(offer: Offer) -> bool:
    """Whether something in it is rejected for good: such a section has no keys."""
    return any(not text.startswith(("m=audio", "m=video")) for _, _, text in offer.left)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_accept_header(header: str) -> None:
    try:
        accepts(header, "application/sdp")
    except WhipError as error:
        assert error.status == 406 and str(error)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
def test_anything_at_all(body: bytes) -> None:
    for parse in (parse_offer, parse_call, parse_whip, parse_whep):
        offered(body, parse)
    try:
        parse_fragment(body)
    except WhipError as error:
        assert error.status in (400, 413) and str(error)


CANDIDATES = r"\A[a-z0-9+/]{1,8} [0-9]{1,6} (udp|tcp|x) [0-9]{1,11} [0-9a-f.:]{1,20} [0-9]{1,6} typ (host|relay|x)\Z"
tokens = st.text("abcXYZ019+/", min_size=1, max_size=12)
candidates = st.builds(Candidate, st.sampled_from("0123"), st.sampled_from([HOST, SRFLX, MDNS, SIX]))
fragments = st.builds(
    Fragment,
    ufrag=st.none() | tokens,
    pwd=st.none() | tokens,
    candidates=st.lists(candidates, max_size=9).map(lambda found: tuple(sorted(found, key=lambda c: c.mid))),
    complete=st.booleans(),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(fragments)
def test_what_is_written_reads_back(fragment: Fragment) -> None:
    again = parse_fragment(write_fragment(fragment).encode())
    assert (again.ufrag, again.pwd, again.complete) == (fragment.ufrag, fragment.pwd, fragment.complete)
    assert again.candidates == fragment.candidates


@settings(max_examples=300, deadline=None)
@given(st.from_regex(CANDIDATES))
def test_candidates_that_we_take_are_read_by_aiortc(line: str) -> None:
    try:
        found = parse_fragment(f"a=mid:0\na=candidate:{line}\n".encode()).candidates
    except WhipError:
        return
    for candidate in found:
        parsed = candidate_from_sdp(candidate.line)
        assert parsed.component == 1 and parsed.protocol.lower() == "udp" and 0 < parsed.port < 65536
