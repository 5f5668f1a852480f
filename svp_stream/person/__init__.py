"""One person on the shipped model: from home video to a weights folder that is served, step by step."""
