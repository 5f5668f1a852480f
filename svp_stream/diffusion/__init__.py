"""Diffusion rooms: autoencoder, conditioner, denoiser, schedule, sampler functions and the temporal latent cache."""
