"""The text of WHIP and WHEP, pure: what an offer must hold, and the trickled SDP fragments.

In: the bodies of POST (`application/sdp`, RFC 8866) and PATCH (`application/trickle-ice-sdpfrag`, RFC 8840).
Out: `Offer` and `Fragment`, or `WhipError` with the HTTP status that says whose fault it is and words that say what.
Remembers: nothing. The shape of the resource is RFC 9725 (WHIP; draft-ietf-wish-whep for WHEP); a call is both.

The rule for the unknown: attributes and sections that we do not read are left to aiortc or ignored (RFC 8866 s. 5),
candidates of a kind that we cannot use are dropped (RFC 8839 section 5.1), a line that is no SDP at all is an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

SDP_TYPE: Final = "application/sdp"
FRAGMENT_TYPE: Final = "application/trickle-ice-sdpfrag"
MAX_SDP_BYTES: Final = 64 * 1024
MAX_FRAGMENT_BYTES: Final = 16 * 1024
MAX_CANDIDATES: Final = 64
MAX_SECTIONS: Final = 16

_LINE: Final = re.compile(r"([a-z])=(.*)")
_MEDIA: Final = re.compile(r"(audio|video|application|[a-z]+) (\d{1,5})(?:/\d+)? ([A-Z]+(?:/[A-Z]+)*) (\S+(?: \S+)*)")
_TOKEN: Final = re.compile(r"[!-~]{1,256}")
_CANDIDATE: Final = re.compile(
    r"[A-Za-z0-9+/]{1,32} (\d{1,5}) ([A-Za-z]{1,8}) (\d{1,10}) ([0-9A-Za-z.:%_-]{1,253}) (\d{1,5})"
    r" typ (host|srflx|prflx|relay)((?: [!-~]+ [!-~]+)*)"
)
_DIRECTIONS: Final = frozenset({"sendrecv", "sendonly", "recvonly", "inactive"})
_SETUPS: Final = frozenset({"actpass", "active", "passive", "holdconn"})


class WhipError(Exception):
    """The request cannot be served; `status` is the HTTP status, the message is for people, `headers` go with it."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Section:
    """One `m=` section of an offer."""

    kind: str
    mid: str | None
    direction: str
    ufrag: str
    setup: str


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer that can be answered: `sdp` holds the `sections` that are taken, `left` (place in the offer, mid, text)
    those that the answer must name all the same (RFC 3264 section 6)."""

    sdp: str
    sections: tuple[Section, ...]
    left: tuple[tuple[int, str, str], ...] = ()

    @property
    def ufrag(self) -> str:
        """The ICE user fragment of the bundle: what a trickled fragment must name."""
        return self.sections[0].ufrag

    @property
    def passive_allowed(self) -> bool:
        """Whether the answer may choose to be the DTLS server (RFC 5763 section 5)."""
        return all(s.setup == "actpass" for s in self.sections if s.kind in ("audio", "video", "application"))


    def sends(self, kind: str) -> bool:
        """Whether it offers to send `kind` ("audio", "video")."""
        return any(s.kind == kind and s.direction in ("sendrecv", "sendonly") for s in self.sections)

    def receives(self, kind: str) -> bool:
        """Whether it offers to receive `kind`."""
        return any(s.kind == kind and s.direction in ("sendrecv", "recvonly") for s in self.sections)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One ICE candidate: `line` is what follows `a=candidate:`."""

    mid: str
    line: str


@dataclass(frozen=True, slots=True)
class Fragment:
    """A trickled fragment (RFC 8840 section 9): candidates for the generation `ufrag`, and whether these are all."""

    ufrag: str | None
    pwd: str | None
    candidates: tuple[Candidate, ...]
    complete: bool


def content_type(header: str | None, expected: str) -> None:
    """Raises `WhipError` 415 unless the header names `expected` (parameters and case do not matter)."""
    kind = (header or "").split(";", 1)[0].strip().lower()
    if kind != expected:
        raise WhipError(415, f"Content-Type is {kind or 'missing'}; this request takes {expected}")


def accepts(header: str | None, kind: str) -> None:
    """Raises `WhipError` 406 when an `Accept` header leaves out `kind` (RFC 9110 section 12.5.1)."""
    family = kind.split("/", 1)[0] + "/*"
    best: dict[str, bool] = {}
    for part in (header or "*/*").lower().split(","):
        name, *parameters = [p.strip() for p in part.split(";")]
        best[name] = not any(re.fullmatch(r"q\s*=\s*0(\.0{0,3})?", p) for p in parameters)
    if not next((best[name] for name in (kind, family, "*/*") if name in best), False):
        raise WhipError(406, f"Accept is {(header or '')[:80]!r}; the answer to this request is {kind}")


def decode(body: bytes, limit: int) -> str:
    """The body as text; raises `WhipError` 413 over `limit` bytes and 400 when it is not UTF-8 text."""
    if len(body) > limit:
        raise WhipError(413, f"the body has {len(body)} bytes; at most {limit} are taken")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WhipError(400, f"the body is not UTF-8 text (byte {error.start})") from error
    if "\0" in text:
        raise WhipError(400, "the body holds a NUL byte")
    return text


def _lines(text: str) -> list[tuple[str, str]]:
    """Splits into (type, value); raises `WhipError` 400 naming the first line that is not `x=value`."""
    parsed = []
    for number, raw in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        if not raw.strip():
            continue
        match = _LINE.fullmatch(raw.rstrip())
        if match is None:
            raise WhipError(400, f"line {number} is not SDP: {raw[:60]!r} (expected 'x=value')")
        parsed.append((match[1], match[2]))
    return parsed


def _attribute(lines: list[tuple[str, str]], name: str) -> str | None:
    """The first value of `a=name:value` (empty for a flag), None where there is none."""
    for kind, value in lines:
        if kind == "a":
            key, _, rest = value.partition(":")
            if key == name:
                return rest.strip()
    return None


def _section(block: list[tuple[str, str]], session: list[tuple[str, str]]) -> Section:
    match = _MEDIA.fullmatch(block[0][1])
    if match is None:
        raise WhipError(400, f"malformed media section: 'm={block[0][1][:60]}'")
    kind = match[1]
    ufrag = _attribute(block, "ice-ufrag") or _attribute(session, "ice-ufrag")
    pwd = _attribute(block, "ice-pwd") or _attribute(session, "ice-pwd")
    fingerprint = _attribute(block, "fingerprint") or _attribute(session, "fingerprint")
    if not ufrag or not pwd or not _TOKEN.fullmatch(ufrag):
        raise WhipError(400, f"the {kind} section has no a=ice-ufrag and a=ice-pwd")
    if not fingerprint:
        raise WhipError(400, f"the {kind} section has no a=fingerprint: the media must be encrypted (DTLS)")
    setup = _attribute(block, "setup") or _attribute(session, "setup") or "actpass"
    if setup not in _SETUPS:
        raise WhipError(400, f"a=setup:{setup[:20]} is none of {', '.join(sorted(_SETUPS))}")
    directions = [v for k, v in block if k == "a" and v in _DIRECTIONS]
    return Section(kind, _attribute(block, "mid"), directions[0] if directions else "sendrecv", ufrag, setup)


def parse_offer(body: bytes) -> Offer:
    """Checks an offer before aiortc sees it.

    Raises `WhipError`: 413 too large, 400 malformed or without encryption.
    """
    text = decode(body, MAX_SDP_BYTES)
    lines = _lines(text)
    if not lines or lines[0] != ("v", "0"):
        raise WhipError(400, "this is no session description: it must begin with 'v=0'")
    starts = [i for i, (kind, _) in enumerate(lines) if kind == "m"]
    if not starts:
        raise WhipError(400, "the offer has no media section ('m=')")
    if len(starts) > MAX_SECTIONS:
        raise WhipError(400, f"the offer has {len(starts)} media sections; at most {MAX_SECTIONS} are taken")
    if sum(1 for k, v in lines if k == "a" and v.startswith("candidate:")) > MAX_CANDIDATES * len(starts):
        raise WhipError(400, f"the offer has over {MAX_CANDIDATES} candidates in a section")
    session = lines[: starts[0]]
    sections = tuple(
        _section(lines[a:b], session) for a, b in zip(starts, [*starts[1:], len(lines)], strict=True)
    )
    if any(s.mid is None for s in sections) or len({s.mid for s in sections}) != len(sections):
        raise WhipError(400, "each media section needs an a=mid of its own")
    return Offer("".join(f"{kind}={value}\r\n" for kind, value in lines), sections)


def parse_call(body: bytes) -> Offer:
    """The offer of a call; raises `WhipError` as `parse_offer`, and 422 when it receives no video."""
    offer = parse_offer(body)
    if not offer.receives("video"):
        raise WhipError(422, "the offer receives no video: add a video transceiver that is 'recvonly' or 'sendrecv'")
    return offer


def parse_whip(body: bytes) -> Offer:
    """The offer of a microphone: of its sections the first that sends sound is taken, and a data channel.

    Raises `WhipError` as `parse_offer`, and 422 when it sends no sound.
    """
    offer = parse_offer(body)
    if not offer.sends("audio"):
        raise WhipError(422, "the offer sends no sound: add an audio track (video may be there, it is not taken)")
    return _taking(offer, {"audio": ("sendonly", "sendrecv")})


def parse_whep(body: bytes) -> Offer:
    """The offer of a viewer: the first sections that receive picture and voice are taken, and a data channel.

    Raises `WhipError` as `parse_offer`, and 422 when it receives neither.
    """
    offer = parse_offer(body)
    if not (offer.receives("video") or offer.receives("audio")):
        raise WhipError(422, "the offer receives nothing: add 'recvonly' transceivers for video and audio")
    receiving = ("recvonly", "sendrecv")
    return _taking(offer, {"video": receiving, "audio": receiving})


def _taking(offer: Offer, wanted: dict[str, tuple[str, ...]]) -> Offer:
    """Only the first section of each kind in `wanted` (with one of its directions) and the first data channel.

    Candidates of the whole bundle often stand in its first section only: they move to the first that is taken.
    """
    head, *blocks = re.split(r"^(?=m=)", offer.sdp, flags=re.MULTILINE)
    taken: dict[str, int] = {}
    for i, section in enumerate(offer.sections):
        if section.direction in wanted.get(section.kind, ()) or section.kind == "application":
            taken.setdefault(section.kind, i)
    places = sorted(taken.values())
    left = [i for i in range(len(blocks)) if i not in places]
    first = blocks[places[0]]
    if "a=candidate:" not in first:
        found = [re.findall(r"^a=candidate:.*\r\n", blocks[i], re.MULTILINE) for i in left]
        first += "".join(next((lines for lines in found if lines), []))
    mids = {str(offer.sections[i].mid) for i in places}
    head = re.sub(r"(?m)^a=group:BUNDLE[^\r\n]*", lambda group: _bundle(group[0], mids), head)
    sdp = "".join([head, first, *(blocks[i] for i in places[1:])])
    named = tuple((i, str(offer.sections[i].mid), blocks[i]) for i in left)
    return Offer(sdp, tuple(offer.sections[i] for i in places), named)


def _bundle(line: str, mids: set[str]) -> str:
    return " ".join(["a=group:BUNDLE", *(mid for mid in line.split()[1:] if mid in mids)])


def completed(answer: str, offer: Offer) -> str:
    """`answer` (to `offer.sdp`) with what was left out of the offer at its place.

    Sound and pictures are answered as inactive, in the bundle, with their own first codec, which every client
    understands whatever its codecs are (some stumble over port 0); what is neither is rejected with port 0.
    """
    head, *blocks = re.split(r"^(?=m=)", answer, flags=re.MULTILINE)
    transport = re.findall(r"^a=(?:ice-ufrag|ice-pwd|fingerprint|setup):[^\r\n]*\r\n", blocks[0], re.MULTILINE)
    bundled = []
    for place, mid, block in offer.left:
        media = _MEDIA.fullmatch(block[2:].split("\r\n", 1)[0])
        assert media is not None, "the offer was parsed"
        alive = media[1] in ("audio", "video")
        payload = media[4].split()[0]
        lines = [f"m={media[1]} {9 if alive else 0} {media[3]} {payload}", "c=IN IP4 0.0.0.0", "a=inactive"]
        lines.append(f"a=mid:{mid}")
        if alive:
            named = rf"^a=(?:rtpmap|fmtp):{re.escape(payload)} [^\r\n]*"
            lines += [*re.findall(named, block, re.MULTILINE), "a=rtcp-mux"]
            bundled.append(mid)
        blocks.insert(place, "".join(f"{line}\r\n" for line in lines) + "".join(transport if alive else []))
    if bundled:
        head = re.sub(r"(?m)^a=group:BUNDLE[^\r\n]*", lambda group: " ".join([group[0], *bundled]), head)
    return head + "".join(blocks)


def first_codec(sdp: str, kind: str) -> str | None:
    """The name, in lower case, of the first codec of the first section of `kind` that is not rejected."""
    for section in sdp.split("\nm=")[1:]:
        match = _MEDIA.match(section)
        if match is not None and match[1] == kind and int(match[2]) > 0:
            rtpmap = re.search(rf"^a=rtpmap:{re.escape(match[4].split()[0])} ([^/\s]+)/", section, re.MULTILINE)
            return rtpmap[1].lower() if rtpmap is not None else None
    return None


def _usable(line: str) -> bool:
    """Whether a candidate is well-formed and one that we could use; raises `WhipError` 400 when it is malformed."""
    match = _CANDIDATE.fullmatch(line)
    if match is None:
        raise WhipError(400, f"malformed candidate: {line[:80]!r}")
    component, transport, priority, port = int(match[1]), match[2].lower(), int(match[3]), int(match[5])
    if not (1 <= component <= 256 and priority < 2**32 and port < 2**16):
        raise WhipError(400, f"a number is out of range in candidate {line[:80]!r}")
    return component == 1 and transport == "udp" and port > 0


def parse_fragment(body: bytes) -> Fragment:
    """Reads a trickled fragment; raises `WhipError` 413 or 400."""
    ufrag: str | None = None
    pwd: str | None = None
    mid: str | None = None
    found: list[Candidate] = []
    waiting: list[str] = []
    complete = False
    for kind, value in _lines(decode(body, MAX_FRAGMENT_BYTES)):
        key, _, rest = value.partition(":")
        if kind == "m":
            mid = None
        elif kind != "a":
            continue
        elif key == "mid":
            mid = rest.strip()
            if not _TOKEN.fullmatch(mid):
                raise WhipError(400, f"malformed a=mid:{mid[:40]!r}")
            found += [Candidate(mid, line) for line in waiting]
            waiting = []
        elif key == "ice-ufrag":
            ufrag = ufrag or rest.strip()
        elif key == "ice-pwd":
            pwd = pwd or rest.strip()
        elif key == "end-of-candidates":
            complete = True
        elif key == "candidate" and _usable(rest.strip()):
            waiting.append(rest.strip())
            if mid is not None:
                found.append(Candidate(mid, waiting.pop()))
    if waiting:
        raise WhipError(400, "a candidate comes without its section: put 'm=' and 'a=mid:' above it")
    if len(found) > MAX_CANDIDATES:
        raise WhipError(400, f"{len(found)} candidates in one fragment; at most {MAX_CANDIDATES} are taken")
    return Fragment(ufrag, pwd, tuple(found), complete)


def write_fragment(fragment: Fragment) -> str:
    """The text of a fragment, one section for each `mid`; `parse_fragment` reads it back."""
    lines = []
    if fragment.ufrag is not None:
        lines.append(f"a=ice-ufrag:{fragment.ufrag}")
    if fragment.pwd is not None:
        lines.append(f"a=ice-pwd:{fragment.pwd}")
    for mid in dict.fromkeys(c.mid for c in fragment.candidates):
        lines += ["m=audio 9 UDP/TLS/RTP/SAVPF 0", f"a=mid:{mid}"]
        lines += [f"a=candidate:{c.line}" for c in fragment.candidates if c.mid == mid]
    if fragment.complete:
        lines.append("a=end-of-candidates")
    return "".join(line + "\r\n" for line in lines)
