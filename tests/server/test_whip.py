"""The text of WHIP: one table of offers, one of fragments for both directions."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from server.whip import (
    Candidate,
    Fragment,
    Offer,
    WhipError,
    accepts,
    completed,
    content_type,
    first_codec,
    parse_call,
    parse_fragment,
    parse_offer,
    parse_whep,
    parse_whip,
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


DATA = """m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:9
a=ice-ufrag:abcd
a=ice-pwd:0123456789012345678901
a=fingerprint:sha-256 AA:BB
a=setup:actpass
a=sctp-port:5000
"""


def offered(*sections: tuple[str, str]) -> bytes:
    """An offer of (kind, direction) sections with the mids 0, 1, ...; candidates stand in the first only."""
    text = HEAD.replace("BUNDLE 0 1", "BUNDLE " + " ".join(map(str, range(len(sections)))))
    for i, (kind, direction) in enumerate(sections):
        block = {"audio": AUDIO, "video": VIDEO, "application": DATA}.get(kind) or AUDIO.replace("audio", kind)
        block = block.replace("a=sendrecv", f"a={direction}").replace("a=recvonly", f"a={direction}")
        text += re.sub(r"a=mid:.*", f"a=mid:{i}", block) + (f"a=candidate:{HOST}\n" if i == 0 else "")
    return crlf(text)


OBS = (("audio", "sendonly"), ("video", "sendonly"))
VIEW = (("video", "recvonly"), ("audio", "recvonly"))


@pytest.mark.parametrize(
    ("parse", "sections", "taken", "left"),
    [
        (parse_whip, (("audio", "sendonly"),), "0", ""),
        (parse_whip, OBS, "0", "1"),
        (parse_whip, OBS[::-1], "1", "0"),
        (parse_whip, (*OBS, *OBS, ("application", "")), "04", "123"),
        (parse_whip, (("audio", "recvonly"), ("audio", "sendrecv"), ("text", "sendrecv")), "1", "02"),
        (parse_whep, VIEW, "01", ""),
        (parse_whep, VIEW[:1], "0", ""),
        (parse_whep, VIEW[1:], "0", ""),
        (parse_whep, (("application", ""), *VIEW, *VIEW), "012", "34"),
        (parse_whep, (("video", "sendonly"), ("video", "sendrecv")), "1", "0"),
        (parse_call, (("audio", "sendrecv"), ("video", "recvonly"), ("application", "")), "012", ""),
    ],
)
def test_what_is_taken_of_an_offer(
    parse: Callable[[bytes], Offer], sections: tuple[tuple[str, str], ...], taken: str, left: str
) -> None:
    offer = parse(offered(*sections))
    assert "".join(str(s.mid) for s in offer.sections) == taken and "".join(mid for _, mid, _ in offer.left) == left
    assert parse_offer(offer.sdp.encode()).sections == offer.sections, "what is left over is an offer again"
    assert f"a=group:BUNDLE {' '.join(taken)}\r\n" in offer.sdp
    assert offer.sdp.split("m=")[1].count("a=candidate:") == 1, "the candidates of the bundle are in its first section"
    answer = completed(offer.sdp, offer)
    assert re.findall("m=([a-z]+)", answer) == [kind for kind, _ in sections]
    for _, mid, _ in offer.left:
        block = next(b for b in re.split(r"\r\nm=", answer)[1:] if f"a=mid:{mid}\r\n" in b)
        alive = block.startswith(("audio", "video"))
        assert "a=inactive" in block and (" 0 " not in block.split("\r\n")[0]) is alive
        bundled = mid in answer.split("a=group:BUNDLE ")[1].split("\r\n")[0].split()
        assert bundled is alive is ("a=ice-pwd" in block) is ("a=rtpmap" in block)


@pytest.mark.parametrize(
    ("parse", "sections", "words"),
    [
        (parse_whip, (("video", "sendonly"),), "sends no sound"),
        (parse_whip, (("audio", "recvonly"), ("application", "")), "sends no sound"),
        (parse_whep, OBS, "receives nothing"),
        (parse_whep, (("application", ""),), "receives nothing"),
        (parse_call, OBS, "no video"),
    ],
)
def test_offers_of_the_wrong_kind(
    parse: Callable[[bytes], Offer], sections: tuple[tuple[str, str], ...], words: str
) -> None:
    with pytest.raises(WhipError, match=words) as caught:
        parse(offered(*sections))
    assert caught.value.status == 422


@pytest.mark.parametrize(
    ("header", "fits"),
    [
        (None, True), ("", True), ("*/*", True), ("application/sdp", True), ("application/*;q=0.1", True),
        ("text/html, application/sdp", True), ("text/html", False), ("application/sdp;q=0, */*", False),
        ("*/*;q=0.000", False), ("*/*; q=0, application/*", True), ("APPLICATION/SDP", True), (";;,", False),
    ],
)  # fmt: skip
def test_accept(header: str | None, fits: bool) -> None:
    if fits:
        accepts(header, "application/sdp")
    else:
        with pytest.raises(WhipError, match="application/sdp") as caught:
            accepts(header, "application/sdp")
        assert caught.value.status == 406


def test_the_first_codec_of_an_answer() -> None:
    sdp = (
        "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\n"
        "m=video 0 UDP/TLS/RTP/SAVPF 99\r\na=rtpmap:99 AV1/90000\r\n"
        "m=video 9 UDP/TLS/RTP/SAVPF 97 98\r\na=rtpmap:98 VP8/90000\r\na=rtpmap:97 H264/90000\r\n"
    )
    assert first_codec(sdp, "video") == "h264" and first_codec(sdp, "audio") == "opus"
    assert first_codec(sdp, "text") is None and first_codec("m=video 9 RTP 1\n", "video") is None
