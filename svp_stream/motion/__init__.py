"""Motion rooms: what is not lips (head, lids, gaze, breath) and its picture for the denoiser (HEAD-Kps)."""
