"""Real video made into clips: decoded, cut into shots, read, judged, cropped and written in the corpus's format."""
