"""What is true on paper: schedules, the Gaussian diffusion, losses and terms of the bound."""
