"""Twenty viewers of one session cost one encode: of pictures and of voice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from aiortc.jitterbuffer import JitterFrame

from server.live import Limits
from tests.fakes.peers import Publisher, Watcher, until
from tests.loopback.conftest import client, open_house

VIEWERS = 20


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts pictures and packets that reach any viewer, instead of decoding them twenty times over."""
    count: Counter[str] = Counter()

    class Counting:
        def __init__(self, codec: Any) -> None:
            self.kind = str(codec.mimeType).split("/")[0]

        def decode(self, _: JitterFrame) -> list[Any]:
            count[self.kind] += 1
            return []

    monkeypatch.setattr("aiortc.rtcrtpreceiver.get_decoder", Counting)
    return count


async def test_twenty_viewers_cost_one_encode(received: Counter[str]) -> None:
    limits = Limits(connect_s=20.0, silence_s=10.0, stats_s=0.5)
    async with open_house(limits=limits) as house, client(house) as http:
        staged = (await http.post("/v1/sessions", json={})).json()["id"]
        live = house.signaling.live(staged)
        watchers = [Watcher(http, of=staged, voice=i < 4) for i in range(VIEWERS)]
        await asyncio.gather(*(w.connect() for w in watchers))
        await until(lambda: received["video"] > 2 * VIEWERS, "pictures for all", 30.0)
        (encoding,) = live.pictures.encodings
        assert len(encoding.viewers) == VIEWERS
        received.clear()
        encoded, voiced, made = encoding.pictures, live.voice.encoded, live.pictures.made
        await until(lambda: encoding.pictures >= encoded + 25, "25 more pictures", 30.0)
        await until(lambda: received["audio"] >= 4 * 20, "voice", 30.0)
        encodes, voices = encoding.pictures - encoded, live.voice.encoded - voiced
        assert encodes <= live.pictures.made - made + 1, "one encode a frame, whoever watches"
        assert received["video"] > 0.5 * VIEWERS * encodes, "and all of them get it"
        assert received["audio"] > 1.5 * voices, "so it is with the voice"
        assert encoding.keys <= 2 + VIEWERS, "one key frame serves all who came meanwhile"
        await asyncio.gather(*(w.hang_up() for w in watchers))
        assert live.pictures.encodings == () and house.signaling.lines.holders() == []
        publisher = Publisher(http, camera=False)
        await publisher.connect(f"?session={staged}")
        await publisher.hang_up()
