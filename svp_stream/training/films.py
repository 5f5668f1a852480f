"""Sample films: a short MP4 with sound, so that a person can see how training moves.

In: uint8 pictures [T, H, W, 3] at 25 fps, int16 sound at 16 kHz. Out: one file, whole or not at all.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from svp_stream.clock import FRAME_RATE_HZ, MODEL_RATE_HZ
from svp_stream.packets import Bytes


def write_film(path: Path, pictures: Bytes, sound: NDArray[np.int16]) -> None:
    """H.264 and AAC; odd sizes lose their last row or column, as 4:2:0 has none."""
    height, width = (2 * (n // 2) for n in pictures.shape[1:3])
    beside = path.with_name(f".{path.name}.part")
    with av.open(str(beside), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE_HZ, options={"crf": "18", "threads": "1"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=MODEL_RATE_HZ, layout="mono")
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE_HZ)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        heard = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound)[None], format="s16", layout="mono")
        heard.sample_rate, heard.pts, heard.time_base = MODEL_RATE_HZ, 0, Fraction(1, MODEL_RATE_HZ)
        container.mux(audio.encode(heard))
        container.mux(audio.encode(None))
    beside.replace(path)
