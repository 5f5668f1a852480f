"""espeak-ng as a child process: text in, phoneme times and sound out.

What it is: libespeak-ng keeps one global synthesiser, is not thread-safe and may abort the process that holds it, so it
runs alone: `python espeak.py VOICE RATE PITCH` reads UTF-8 text on stdin and writes to stdout one line of JSON
{"rate_hz": int, "end_s": float, "phonemes": [[start_s, mnemonic], ...]} followed by int16 mono samples. Exit status 3:
library missing; 4: unknown voice; 5: synthesis failed; the reason is on stderr. Imports the standard library alone.
Reference: espeak-ng/speak_lib.h (events, `espeakINITIALIZE_PHONEME_EVENTS`).
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any, Final

AUDIO_OUTPUT_SYNCHRONOUS: Final = 2
INITIALIZE_PHONEME_EVENTS: Final = 1
INITIALIZE_DONT_EXIT: Final = 0x8000
CHARS_UTF8: Final = 1
RATE, PITCH = 1, 3
EVENT_END, EVENT_PHONEME = 0, 7
LIBRARY: Final = "libespeak-ng.so.1"


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", _Id),
    ]


def speak(text: str, voice: str, rate_wpm: int, pitch: int) -> tuple[int, list[tuple[float, str]], bytes]:
    """Sample rate, [(start in seconds, mnemonic)], int16 sound. Raises OSError, LookupError or ValueError."""
    library = ctypes.CDLL(LIBRARY)
    sound = bytearray()
    phonemes: list[tuple[float, str]] = []

    def take(wave: int | None, count: int, events: Any) -> int:
        if wave:
            sound.extend(ctypes.string_at(wave, count * 2))
        at = 0
        while events[at].type != EVENT_END:
            if events[at].type == EVENT_PHONEME:
                mnemonic = events[at].id.string.decode("utf-8", "replace")
                phonemes.append((events[at].audio_position / 1000, mnemonic))
            at += 1
        return 0

    rate_hz = library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, None,
                                        INITIALIZE_PHONEME_EVENTS | INITIALIZE_DONT_EXIT)
    if rate_hz <= 0:
        raise OSError("espeak_Initialize failed: is the package espeak-ng-data installed?")
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))
    kept_alive = prototype(take)
    library.espeak_SetSynthCallback(kept_alive)
    if library.espeak_SetVoiceByName(voice.encode()):
        raise LookupError(f"espeak-ng has no voice {voice!r}")
    library.espeak_SetParameter(RATE, rate_wpm, 0)
    library.espeak_SetParameter(PITCH, pitch, 0)
    data = text.encode()
    if library.espeak_Synth(data, len(data) + 1, 0, 1, 0, CHARS_UTF8, None, None) or library.espeak_Synchronize():
        raise ValueError("espeak_Synth failed")
    return int(rate_hz), phonemes, bytes(sound)


def main(voice: str, rate: str, pitch: str) -> int:
    """The child's entry; see the card for the wire."""
    try:
        rate_hz, phonemes, sound = speak(sys.stdin.buffer.read().decode(), voice, int(rate), int(pitch))
    except (OSError, LookupError, ValueError) as reason:
        sys.stderr.write(f"{reason}\n")
        return 3 if isinstance(reason, OSError) else 4 if isinstance(reason, LookupError) else 5
    head = {"rate_hz": rate_hz, "end_s": len(sound) / 2 / rate_hz, "phonemes": phonemes}
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + sound)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
