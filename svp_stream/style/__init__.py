"""Style rooms: the probabilistic prior, distances between styles, presets, families, blends, projection to tokens."""
