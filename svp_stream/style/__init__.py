"""Style rooms: the probabilistic prior, distances between styles, presets, gliding blends, projection to tokens."""
