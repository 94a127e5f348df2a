"""Short complete programs that build something of their own around `vae_jax.elbo`."""
