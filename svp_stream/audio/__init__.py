"""Sound rooms: 48 kHz microphone to 16 kHz, voice activity, speech state, streaming wav2vec tokens."""
