"""Images to x_t and back: what the paper's figures 7 to 9, DDIM inversion and inpainting need.

Here t counts the steps of diffusion, 0..T, as in the paper: t = 0 is the image itself, and x_t has
time index t - 1 in the code.
"""

from ddpm.latents.diffusing import denoise, diffuse
from ddpm.latents.inpainting import inpaint
from ddpm.latents.interpolating import interpolate
from ddpm.latents.inverting import invert

__all__ = ["denoise", "diffuse", "inpaint", "interpolate", "invert"]
