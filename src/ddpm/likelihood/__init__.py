"""What is measured of a model: its bound, its denoising error, and the timesteps chosen by them."""
