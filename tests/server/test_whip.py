"""The text of WHIP: one table of offers, one of fragments for both directions."""

from __future__ import annotations

import pytest

from server.whip import (
    Candidate,
    Fragment,
    WhipError,
    content_type,
    parse_call,
    parse_fragment,
    parse_offer,
    write_fragment,
)

AUDIO = """\
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=mid:0
a=sendrecv
a=ice-ufrag:abcd
a=ice-pwd:0123456789012345678901
a=fingerprint:sha-256 AA:BB
a=setup:actpass
a=rtpmap:111 opus/48000/2
"""
VIDEO = AUDIO.replace("audio", "video").replace("a=mid:0", "a=mid:1").replace("sendrecv", "recvonly")
HEAD = "v=0\no=- 1 2 IN IP4 127.0.0.1\ns=-\nt=0 0\na=group:BUNDLE 0 1\n"
OFFER = HEAD + AUDIO + VIDEO


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_an_offer_is_read_with_any_line_ending(ending: str) -> None:
    offer = parse_offer(OFFER.replace("\n", ending).encode())
    read = [(s.kind, s.mid, s.direction) for s in offer.sections]
    assert read == [("audio", "0", "sendrecv"), ("video", "1", "recvonly")]
    assert offer.ufrag == "abcd" and offer.passive_allowed


def test_attributes_of_the_session_hold_for_its_sections() -> None:
    session = HEAD + "a=ice-ufrag:S\na=ice-pwd:p\na=fingerprint:sha-256 AA\na=setup:active\n"
    bare = "m=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:x\n"
    offer = parse_offer(crlf(session + bare))
    assert offer.ufrag == "S" and not offer.passive_allowed and offer.sections[0].direction == "sendrecv"


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("", 400, "v=0"),
        ("hello", 400, "line 1"),
        ("v=1\n", 400, "v=0"),
        (HEAD, 400, "no media section"),
        (HEAD + "m=video nine UDP 1\n", 400, "malformed media"),
        (HEAD + AUDIO, 422, "no video"),
        (HEAD + VIDEO.replace("recvonly", "sendonly"), 422, "no video"),
        (HEAD + VIDEO.replace("recvonly", "inactive"), 422, "no video"),
        (OFFER.replace("a=ice-ufrag:abcd\n", ""), 400, "ice-ufrag"),
        (OFFER.replace("a=fingerprint:sha-256 AA:BB\n", ""), 400, "encrypted"),
        (OFFER.replace("setup:actpass", "setup:perhaps"), 400, "setup"),
        (OFFER.replace("a=mid:1", "a=mid:0"), 400, "a=mid"),
        (OFFER.replace("a=mid:1\n", ""), 400, "a=mid"),
        (HEAD + VIDEO * 17, 400, "17 media sections"),
        (HEAD + VIDEO + "a=candidate:x\n" * 65, 400, "over 64 candidates"),
        (OFFER + "a=x:" + "y" * 65536, 413, "at most 65536"),
        (OFFER + "\0", 400, "NUL"),
    ],
)
def test_offers_that_are_refused(text: str, status: int, words: str) -> None:
    with pytest.raises(WhipError, match=words) as caught:
        parse_call(text.encode())
    assert caught.value.status == status


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(WhipError, match="byte 1"):
        parse_offer(b"v\xff=0")


HOST = "1 1 udp 2130706431 192.168.1.7 50000 typ host"
SRFLX = "842163049 1 udp 1677729535 203.0.113.4 50001 typ srflx raddr 192.168.1.7 rport 50000 generation 0"
MDNS = "1 1 UDP 2122260223 3a5d0e2e-5b1a-4a7e-9a0b-7b6f4f7e2a11.local 50002 typ host"
SIX = "7 1 udp 2122262783 2001:db8::1 50003 typ host"
FRAGMENTS = [
    Fragment("abcd", "0123456789012345678901", (Candidate("0", HOST), Candidate("0", SRFLX)), False),
    Fragment("abcd", None, (Candidate("audio", MDNS), Candidate("video", SIX)), True),
    Fragment("abcd", None, (), True),
    Fragment(None, None, (), False),
]


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_fragments_both_ways(fragment: Fragment) -> None:
    assert parse_fragment(write_fragment(fragment).encode()) == fragment


def test_rfc_8840_example_with_candidate_before_its_mid_and_a_group() -> None:
    media = f"m=audio 9 UDP/TLS/RTP/SAVPF 0\na=candidate:{HOST}\na=mid:0\na=end-of-candidates\n"
    text = "a=ice-ufrag:abcd\na=group:BUNDLE 0\n" + media
    assert parse_fragment(text.encode()) == Fragment("abcd", None, (Candidate("0", HOST),), True)


@pytest.mark.parametrize(
    "line",
    ["1 2 udp 1 1.2.3.4 5 typ host", "1 1 tcp 1 1.2.3.4 9 typ host tcptype active", "1 1 udp 1 1.2.3.4 0 typ host"],
)
def test_candidates_that_we_cannot_use_are_dropped(line: str) -> None:
    assert parse_fragment(f"m=audio 9 X 0\na=mid:0\na=candidate:{line}\n".encode()).candidates == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"a=candidate:{HOST}\n", "without its section"),
        ("a=mid:0\na=candidate:nonsense\n", "malformed candidate"),
        ("a=mid:0\na=candidate:1 1 udp 1 1.2.3.4 70000 typ host\n", "out of range"),
        ("a=mid:0\na=candidate:1 1 udp 99999999999 1.2.3.4 7 typ host\n", "malformed|out of range"),
        ("a=mid:has space\n", "malformed a=mid"),
        ("a=mid:0\n" + f"a=candidate:{HOST}\n" * 65, "65 candidates"),
        ("{}", "line 1"),
    ],
)
def test_fragments_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(WhipError, match=words) as caught:
        parse_fragment(text.encode())
    assert caught.value.status == 400


@pytest.mark.parametrize("header", ["application/sdp", "Application/SDP", "application/sdp; charset=utf-8"])
def test_content_type(header: str) -> None:
    content_type(header, "application/sdp")


@pytest.mark.parametrize("header", [None, "", "text/plain", "application/json"])
def test_other_content_types(header: str | None) -> None:
    with pytest.raises(WhipError) as caught:
        content_type(header, "application/sdp")
    assert caught.value.status == 415
