"""The commands of `vae-jax`, one a file."""
