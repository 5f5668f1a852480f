"""URLs, minted credentials and `Link` headers as text, and what is done about servers that fail."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import turn
from server.ice import Ice
from server.ice_troubles import Troubles
from server.turn import Credential, IceServer, IceUrl
from svp_stream.config import Config, check
from svp_stream.config import Ice as IceKeys
from svp_stream.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "url", "written"),
    [
        ("stun:a.example", IceUrl("stun", "a.example", 3478, "udp"), "stun:a.example:3478"),
        ("turn:10.0.0.1:99", IceUrl("turn", "10.0.0.1", 99, "udp"), "turn:10.0.0.1:99?transport=udp"),
        ("turn:h?transport=tcp", IceUrl("turn", "h", 3478, "tcp"), "turn:h:3478?transport=tcp"),
        ("turns:h", IceUrl("turns", "h", 5349, "tcp"), "turns:h:5349?transport=tcp"),
        ("turn:[2001:db8::1]:5", IceUrl("turn", "2001:db8::1", 5, "udp"), "turn:[2001:db8::1]:5?transport=udp"),
    ],
)
def test_urls(text: str, url: IceUrl, written: str) -> None:
    assert turn.parse_url(text) == url and str(url) == written and turn.parse_url(written) == url


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"stun": ["turn:h"]}, ["ice.stun.0", "is no STUN URL", "stun:host:3478", "'turn:h'"]),
        ({"stun": ["stun:h:99999"]}, ["ice.stun.0", "is no STUN URL"]),
        ({"turn": ["turn:h?transport=sctp"], "secret": "s"}, ["ice.turn.0", "is no TURN URL"]),
        ({"turn": ["turns:h?transport=udp"], "secret": "s"}, ["ice.turn.0", "DTLS"]),
        ({"turn": ["turn:h"]}, ["ice", "secret", "credential"]),
        ({"turn": ["turn:h"], "username": "u"}, ["ice", "belong together"]),
        ({"turn": ["turn:h"], "username": "u", "credential": "c", "secret": "s"}, ["ice", "either"]),
        ({"policy": "relay"}, ["ice", "relay", "turn"]),
        ({"port_range": [50100, 50000]}, ["ice", "low to high"]),
        ({"port_range": [80, 90]}, ["ice.port_range", "1024"]),
        ({"advertise": "my.host"}, ["ice.advertise", "my.host"]),
        ({"sekret": "x"}, ["ice.sekret", "did you mean secret"]),
    ],
)
def test_wrong_profiles_are_told(keys: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check({"ice": keys}, Config, "p.yaml")
    assert all(word in str(caught.value) for word in words), caught.value


def test_secrets_do_not_show() -> None:
    keys = IceKeys(turn=("turn:h",), secret="hush-hush")
    assert "hush-hush" not in repr(keys) and "hush-hush" not in repr(Config(ice=keys))
    with pytest.raises(ConfigError) as caught:
        check({"ice": {"turn": ["turn:h"], "secret": "hush-hush", "username": "u", "credential": "hush"}}, Config, "p")
    assert "hush" not in str(caught.value)
    paths = Ice(keys)
    plan = paths.plan()
    assert plan.credential is not None and plan.credential.password not in repr(plan)
    assert "hush-hush" not in " ".join(paths.link_headers())


def test_minted_credentials_are_those_of_the_draft() -> None:
    minted = turn.mint("s3cret", 1_700_000_000.9, 600, "caller")
    assert minted.username == "1700000600:caller" and turn.expires_s(minted.username) == 1_700_000_600
    expected = hmac.new(b"s3cret", b"1700000600:caller", hashlib.sha1).digest()
    assert base64.b64decode(minted.password) == expected
    assert turn.mint("s3cret", 0, 60).username == "60"
    assert turn.expires_s("alice") is None and turn.expires_s("") is None and turn.expires_s("9" * 400) is None


def test_server_and_caller_get_credentials_of_their_own() -> None:
    paths = Ice(IceKeys(stun=("stun:s",), turn=("turn:t", "turns:t"), secret="x"))
    told = turn.parse_links(", ".join(paths.link_headers()))
    assert [server.url for server in told] == ["stun:s", "turn:t", "turns:t"]
    assert told[0].credential is None and told[1].credential == told[2].credential
    ours = paths.plan().credential
    assert ours is not None and told[1].credential is not None and ours != told[1].credential
    assert ours.username.endswith(":server") and told[1].credential.username.endswith(":caller")
    fixed = Ice(IceKeys(turn=("turn:t",), username="u", credential='a"b\\c'))
    assert turn.parse_links(fixed.link_headers()[0])[0].credential == Credential("u", 'a"b\\c')
    assert Ice().link_headers() == [] and Ice().plan().credential is None


PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80)


@given(PRINTABLE, PRINTABLE)
def test_links_come_back_as_they_went(username: str, password: str) -> None:
    server = IceServer("turn:h:1?transport=tcp", Credential(username, password))
    assert turn.parse_links(turn.link_header(server)) == [server]


@given(st.text(max_size=120))
def test_any_text_is_read_as_links_without_an_error(text: str) -> None:
    turn.parse_links(text)
    turn.parse_links(f'<turn:h>; rel="ice-server"; {text}')


def test_a_link_as_rfc_9725_shows_it() -> None:
    shown = (
        '<stun:stun.example.net>; rel="ice-server", '
        '<turn:turn.example.net?transport=udp>; rel="ice-server"; username="user"; '
        'credential="myPassword"; credential-type="password", <https://x>; rel="next"'
    )
    assert turn.parse_links(shown) == [
        IceServer("stun:stun.example.net"),
        IceServer("turn:turn.example.net?transport=udp", Credential("user", "myPassword")),
    ]


@pytest.mark.parametrize(
    ("code", "word"), [(401, "clocks"), (403, "forbids"), (486, "quota"), (508, "port"), (599, "599")]
)
def test_refusals_in_words(code: int, word: str) -> None:
    assert word in turn.refusal(code, "Reason", minted=True)
    assert "ice.username" in turn.refusal(401, "", minted=False)


def test_a_server_that_fails_is_left_alone_for_a_while() -> None:
    a, b = turn.parse_url("turn:a"), turn.parse_url("turn:b")
    troubles = Troubles(pause_s=30)
    assert troubles.order([a, b], 0.0, insist=False) == [a, b]
    assert troubles.failed(str(a), "does not answer", 0.0) and not troubles.failed(str(a), "does not answer", 5.0)
    assert troubles.failed(str(a), "refused", 6.0), "other words are news"
    assert troubles.order([a, b], 10.0, insist=False) == [b]
    assert troubles.order([a, b], 10.0, insist=True) == [b, a]
    assert troubles.order([a, b], 36.0, insist=False) == [a, b]
    assert troubles.sentences() == [f"{a} refused"]
    assert troubles.worked(str(a)) and not troubles.worked(str(a)) and troubles.sentences() == []
