"""Style rooms: the probabilistic prior, distances between styles, presets, families, gliding blends, projection to tokens."""
