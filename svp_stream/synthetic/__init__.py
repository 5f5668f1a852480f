"""The corpus maker: text to speech with phoneme times, articulation in a style, a rigged head, a renderer."""
