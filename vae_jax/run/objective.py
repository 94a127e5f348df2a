"""What a run's training maximises: a bound, and what is subtracted from it."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import optax

import vae_jax
from vae_jax.run.options import NUMBERS, Objective

# By --objective and --gradient; options.check refuses other pairs. A new one is a line here, one in
# options.GRADIENTS and one of help.
_BOUNDS: dict[tuple[str, str], Callable[..., vae_jax.Bound]] = {
    # Exact where the KL has a closed form.
    ("elbo", "reparameterized"): functools.partial(vae_jax.elbo, analytic_kl=None),
    ("elbo", "estimated_kl"): functools.partial(vae_jax.elbo, analytic_kl=False),
    ("elbo", "sticking_the_landing"): vae_jax.sticking_the_landing,
    ("iwae", "reparameterized"): vae_jax.iwae,
    ("iwae", "doubly_reparameterized"): vae_jax.doubly_reparameterized,
    ("iwae", "vimco"): vae_jax.vimco,
    ("iwae", "reweighted_wake_sleep"): vae_jax.reweighted_wake_sleep,
    ("miwae", "reparameterized"): vae_jax.miwae,
    ("ciwae", "reparameterized"): vae_jax.ciwae,
    ("renyi", "reparameterized"): vae_jax.renyi,
}
# Where none is given, outside a run, whose options are settled.
_GRADIENT: Literal["reparameterized"] = "reparameterized"
# What the library calls the numbers of options.NUMBERS.
_KEYWORDS = {"miwae": "num_groups", "ciwae": "beta", "renyi": "alpha"}


def make_loss(
    chosen: Objective,
    model: vae_jax.VAE,
    observe: Any,
    steps_per_epoch: int,
    num_examples: int,
    *,
    optimal_scale: bool = False,
) -> Callable[..., Any]:
    """The loss that the options name; what it reports beside its value is the ELBO in any case.

    Args:
      chosen: the options.
      model: the VAE.
      observe: (key, bytes) -> x.
      steps_per_epoch: in which a warm-up is counted.
      num_examples: of training, by which the total correlation is estimated.
      optimal_scale: of a Normal likelihood; train under the scale that is best for each batch.
    """
    bound_of = _BOUNDS[chosen.objective, chosen.gradient or _GRADIENT]
    if chosen.objective in NUMBERS:
        number = getattr(chosen, NUMBERS[chosen.objective])
        bound_of = functools.partial(bound_of, **{_KEYWORDS[chosen.objective]: number})
    loss = vae_jax.make_loss(
        model,
        observe=observe,
        objective=_with_optimal_scale(bound_of) if optimal_scale else bound_of,
        num_draws=chosen.num_draws,
        penalty=_penalty(chosen, steps_per_epoch, num_examples),
    )
    if chosen.objective == "elbo":
        return loss

    def with_elbo(params: Any, key: jax.Array, batch: Any, step: jax.Array) -> Any:
        value, bound = loss(params, key, batch, step)
        return value, {
            "elbo": bound.log_likelihood - bound.kl,
            chosen.objective: bound.value,
            "log_likelihood": bound.log_likelihood,
            "kl": bound.kl,
        }

    return with_elbo


def _with_optimal_scale(bound_of: Callable[..., vae_jax.Bound]) -> Callable[..., vae_jax.Bound]:
    """The bound under the scale that is best for the batch (Rybkin et al. 2021, section 4.2).

    The likelihood's own scale, by which other data are scored, is learned beside it, and moves
    nothing else: its term has a gradient and no value.
    """

    def objective(x: Any, z: Any, posterior: Any, prior: Any, likelihood: Any) -> vae_jax.Bound:
        mean, events = likelihood.mean, likelihood.event_ndims
        best = vae_jax.Normal(mean, vae_jax.optimal_scale(x, mean), events)
        bound = bound_of(x, z, posterior, prior, best)
        own = vae_jax.Normal(jax.lax.stop_gradient(mean), likelihood.scale, events).log_prob(x)
        return bound._replace(value=bound.value + (own - jax.lax.stop_gradient(own)))

    return objective


def _penalty(
    chosen: Objective, steps_per_epoch: int, num_examples: int
) -> Callable[..., jax.Array] | None:
    if chosen.beta == 1 and not chosen.kl_warmup and not chosen.free_bits:
        return None if chosen.penalty == "none" else _of_batch(chosen, num_examples)
    schedule = optax.constant_schedule(chosen.beta)
    if chosen.kl_warmup:
        schedule = optax.linear_schedule(0.0, chosen.beta, chosen.kl_warmup * steps_per_epoch)

    def penalty(
        bound: vae_jax.Bound, z: jax.Array, posterior: Any, prior: Any, step: jax.Array
    ) -> jax.Array:
        beta = schedule(step)
        total = vae_jax.weighted_kl(bound.kl, beta)
        if chosen.free_bits:
            # The KL of every latent is beta times what it is, or what is free.
            layers = isinstance(posterior, vae_jax.Joint)  # of a hierarchy, each layer's
            kl = vae_jax.kl_per_layer if layers else vae_jax.kl_per_dimension
            each = kl(posterior, prior)
            total = total + beta * vae_jax.free_bits(each, chosen.free_bits)
        if chosen.penalty != "none":
            total = total + _of_batch(chosen, num_examples)(bound, z, posterior, prior, step)
        return total

    return penalty


def _of_batch(chosen: Objective, num_examples: int) -> Callable[..., jax.Array]:
    """The penalty of --penalty, times its weight."""
    weight = chosen.penalty_weight
    assert weight is not None

    def penalty(
        bound: vae_jax.Bound, z: jax.Array, posterior: Any, prior: Any, step: jax.Array
    ) -> jax.Array:
        if chosen.penalty == "total_correlation":
            return weight * vae_jax.total_correlation(z, posterior, num_examples)
        if chosen.penalty == "dip_vae_i":  # the weights of the paper have this ratio
            return vae_jax.dip_vae_i(posterior, off_diagonal=weight, diagonal=10 * weight)
        if chosen.penalty == "dip_vae_ii":
            return vae_jax.dip_vae_ii(posterior, off_diagonal=weight, diagonal=weight)
        # A step's own key, of what is no part of the model.
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), step))
        each = prior.shape == z.shape  # a conditional prior, one for each example
        prior_z = vae_jax.sample(keys[0], prior, () if each else len(z))
        if chosen.penalty == "mmd":
            return weight * vae_jax.maximum_mean_discrepancy(z, prior_z)
        return weight * vae_jax.sliced_wasserstein(keys[1], z, prior_z)

    return penalty


def described(chosen: Objective) -> str:
    """One line; empty for the plain ELBO of one draw."""
    if chosen in (Objective(), Objective(gradient=_GRADIENT)):
        return ""
    draws = f" of {chosen.num_draws} draws" if chosen.num_draws > 1 else ""
    number = NUMBERS.get(chosen.objective)
    own = f" ({number.replace('_', ' ')} {getattr(chosen, number):g})" if number else ""
    parts = [f"{chosen.objective}{own}{draws}, {chosen.gradient or _GRADIENT} gradient"]
    if chosen.beta != 1:
        parts.append(f"beta {chosen.beta:g}")
    if chosen.kl_warmup:
        parts.append(f"the KL's weight rising over {chosen.kl_warmup} epochs")
    if chosen.free_bits:
        parts.append(f"{chosen.free_bits:g} nats of each latent free")
    if chosen.penalty != "none":
        parts.append(f"{chosen.penalty.replace('_', ' ')} at {chosen.penalty_weight:g}")
    return f"objective: {'; '.join(parts)}. What is reported is the ELBO, and log p(x)"
