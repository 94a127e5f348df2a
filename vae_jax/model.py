"""A VAE as four pure functions, and what one does with a trained one."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions import Ancestral, Joint, Normal, foreign, sample, vamp_mixture
from vae_jax.distributions.location import location

__all__ = [
    "VAE",
    "generate",
    "interpolate",
    "make_vae",
    "reconstruct",
    "transfer",
    "traverse",
    "with_vamp_prior",
]

Params = Any


class Network(Protocol):
    """What `make_vae` needs of a network; every Flax Linen module has it."""

    def init(self, rngs: Any, *args: Any) -> Any: ...

    def apply(self, variables: Any, *args: Any) -> Any: ...


class InitFn(Protocol):
    def __call__(self, key: Array, x: Array, label: Any = None) -> Params: ...


class EncodeFn(Protocol):
    def __call__(self, params: Params, x: Array, label: Any = None) -> Any: ...


class PriorFn(Protocol):
    def __call__(self, params: Params, label: Any = None) -> Any: ...


class DecodeFn(Protocol):
    def __call__(self, params: Params, z: Array, label: Any = None) -> Any: ...


class VAE(NamedTuple):
    """Four pure functions that make a variational autoencoder.

    Attributes:
      init: (key, x, label=None) -> params, from an example batch.
      encode: (params, x, label=None) -> posterior q(z|x) or q(z|x,c), batch axes those of x.
      prior: (params, label=None) -> prior p(z), without batch axes, or p(z|c).
      decode: (params, z, label=None) -> likelihood p(x|z) or p(x|z,c), batch axes those of z.

    >>> model = VAE(
    ...     init=lambda key, x, label=None: jax.random.normal(key, x.shape[-1:]),
    ...     encode=lambda params, x, label=None: Normal(x @ params[:, None], 1.0),
    ...     prior=lambda params, label=None: Normal(jnp.zeros(1), 1.0),
    ...     decode=lambda params, z, label=None: Normal(z @ params[None], 1.0),
    ... )
    >>> params = model.init(jax.random.key(0), jnp.zeros((4, 3)))
    >>> model.decode(params, model.encode(params, jnp.zeros((4, 3))).mean).mean.shape
    (4, 3)
    """

    init: InitFn
    encode: EncodeFn
    prior: PriorFn
    decode: DecodeFn


def make_vae(
    encoder: Network, decoder: Network, latent_dim: int, prior: Network | None = None
) -> VAE:
    """A VAE from an encoder and a decoder, with the prior N(0, I); conditional with a label.

    A label goes to the networks as it is, and only where it is given.

    Args:
      encoder: [*b, *event] -> q(z|x), such as `networks.Encoder`.
      decoder: [*b, Z] -> p(x|z), such as `networks.BernoulliDecoder`.
      latent_dim: Z.
      prior: label -> p(z|c) with the label's batch axes (Sohn et al. 2015, section 4.1): an encoder
        of the label, or `networks.StandardPrior`. Or one that is called with nothing, for a learned
        p(z) without batch axes, such as `networks.FlowPrior`. None for N(0, I), likewise.

    Returns:
      A `VAE` whose params are {"encoder": phi, "decoder": theta}, and "prior" where there is one.

    Raises:
      TypeError: when called: a label for unconditional networks, none for conditional ones. At
        `init`: a network keeps more than parameters, such as BatchNorm's averages, or draws for
        itself, as Dropout does.
      ValueError: at `init`: latent sizes that do not agree.

    >>> from vae_jax import networks
    >>> encoder = networks.Encoder(networks.MLP((2 * 3,), hidden=(8,)))
    >>> decoder = networks.BernoulliDecoder(networks.MLP((5,), hidden=(8,)))
    >>> model = make_vae(encoder, decoder, latent_dim=3)
    >>> params = model.init(jax.random.key(0), jnp.zeros((1, 5)))
    >>> model.encode(params, jnp.zeros((4, 5))).mean.shape
    (4, 3)
    """

    def init(key: Array, x: Array, label: Any = None) -> Params:
        encoder_key, decoder_key, prior_key = jax.random.split(key, 3)
        # x may be bytes, of which a likelihood knows; z is real.
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32
        z = jnp.zeros((x.shape[0], latent_dim), dtype)
        params = {
            "encoder": _init("encoder", encoder, encoder_key, x, *_given(label)),
            "decoder": _init("decoder", decoder, decoder_key, z, *_given(label)),
        }
        if prior is not None:
            params["prior"] = _init("prior", prior, prior_key, *_of_prior(prior, label))
        _check_draws_nothing("encoder", lambda: encode(params, x, label))
        _check_draws_nothing("decoder", lambda: decode(params, z, label))
        _check_latent_dim("encoder", latent_dim, lambda: encode(params, x, label))
        if prior is not None:
            _check_latent_dim("prior", latent_dim, lambda: prior_of(params, label))
        return params

    def encode(params: Params, x: Array, label: Any = None) -> Any:
        return encoder.apply({"params": params["encoder"]}, x, *_given(label))

    def prior_of(params: Params, label: Any = None) -> Any:
        if prior is None:
            return Normal(jnp.zeros(latent_dim), jnp.ones(latent_dim))
        return prior.apply({"params": params["prior"]}, *_of_prior(prior, label))

    def decode(params: Params, z: Array, label: Any = None) -> Any:
        return decoder.apply({"params": params["decoder"]}, z, *_given(label))

    return VAE(init, encode, prior_of, decode)


def _init(name: str, network: Network, key: Array, *inputs: Any) -> Params:
    """The network's parameters; a network without any has no such collection."""
    variables = network.init(key, *inputs)
    more = sorted(set(variables) - {"params"})
    if more:
        raise TypeError(
            f"the {name} keeps {', '.join(more)} beside its parameters, which a pure function of "
            "them cannot change: use LayerNorm or GroupNorm for BatchNorm, or compose vae_jax.elbo "
            "with the network's own apply"
        )
    return variables.get("params", {})


def _check_draws_nothing(name: str, apply: Callable[[], Any]) -> None:
    """Raises TypeError where a network wants randomness of its own."""
    try:
        _shape_of(apply)
    except Exception as error:
        if type(error).__name__ != "InvalidRngError":  # flax's, which is not imported here
            raise
        raise TypeError(
            f"the {name} draws for itself, as Dropout does, and is given no key ({error}): make "
            "it deterministic, or compose vae_jax.elbo with the network's own apply"
        ) from error


def _check_latent_dim(name: str, latent_dim: int, apply: Callable[[], Any]) -> None:
    shape = _shape_of(apply)
    if shape is not None and shape[-1:] != (latent_dim,):
        raise ValueError(
            f"latent_dim is {latent_dim} but the {name}'s distribution has shape {shape}: its last "
            "axis must be of that length"
        )


def _shape_of(apply: Callable[[], Any]) -> tuple[int, ...] | None:
    """Of the distribution that a network gives, without computing it; None of a Joint."""
    found: list[Any] = []

    def note() -> None:
        distribution = apply()
        found.append(None if isinstance(distribution, Joint) else foreign.shape(distribution))

    jax.eval_shape(note)
    shape: tuple[int, ...] | None = found[0]
    return shape


def _given(label: Any) -> tuple[Any, ...]:
    return () if label is None else (label,)


def _of_prior(prior: Any, label: Any) -> tuple[Any, ...]:
    """What a prior's network is called with: the label, or nothing where it takes nothing."""
    if callable(prior) and not inspect.signature(prior).parameters:
        return ()
    if label is None:
        raise TypeError("label is None but the prior is conditional: pass a label")
    return (label,)


def with_vamp_prior(model: VAE, num_components: int, *, noise: float = 0.1) -> VAE:
    """A VAE whose prior is the mixture of its own posteriors at K learned pseudo-inputs.

    The VampPrior (Tomczak & Welling 2018, equation 9), with equal shares. The pseudo-inputs start
    at the rows of the example batch that `init` is given, in turn, with noise: give it K of the
    training set. They are no further constrained.

    Args:
      model: an unconditional VAE whose params are a dict, such as `make_vae` gives; its own prior
        is not used.
      num_components: K.
      noise: standard deviation of what is added to the rows.

    Returns:
      A `VAE` with "pseudo_inputs", [K, *event], beside the params of `model`.

    Raises:
      ValueError: num_components is less than 1.
      TypeError: when called: the params are no dict, or a label is given.

    >>> from vae_jax import networks
    >>> encoder = networks.Encoder(networks.MLP((2 * 3,), hidden=(8,)))
    >>> decoder = networks.BernoulliDecoder(networks.MLP((5,), hidden=(8,)))
    >>> model = with_vamp_prior(make_vae(encoder, decoder, latent_dim=3), num_components=7)
    >>> params = model.init(jax.random.key(0), jnp.zeros((1, 5)))
    >>> params["pseudo_inputs"].shape, model.prior(params).shape
    ((7, 5), (3,))
    """
    if num_components < 1:
        raise ValueError(f"num_components is {num_components}: give 1 or more")

    def init(key: Array, x: Array, label: Any = None) -> Params:
        if label is not None:
            raise TypeError("a label was given but a VampPrior is unconditional: leave it out")
        model_key, noise_key = jax.random.split(key)
        params = model.init(model_key, x)
        if not isinstance(params, dict):
            raise TypeError(f"the params are a {type(params).__name__}: a VampPrior adds to a dict")
        rows = x[jnp.arange(num_components) % len(x)]
        added = noise * jax.random.normal(noise_key, rows.shape, rows.dtype)
        return {**params, "pseudo_inputs": rows + added}

    def prior(params: Params, label: Any = None) -> Any:
        return vamp_mixture(lambda x: model.encode(params, x), params["pseudo_inputs"])

    return model._replace(init=init, prior=prior)


def generate(
    key: Array,
    model: VAE,
    params: Params,
    sample_shape: int | tuple[int, ...] = (),
    label: Any = None,
) -> Any:
    """p(x|z) for draws z from the prior.

    Args:
      key: a typed PRNG key.
      model: the VAE.
      params: its parameters.
      sample_shape: how many draws of z, for each label where there are labels.
      label: [*b] or None; `model.prior` must have its batch axes.

    Returns:
      The likelihood, batch axes [*sample_shape, *b]. Its `.mean` is the picture one shows; `sample`
      of it is a draw of x.

    Raises:
      TypeError: the key is not typed.
      ValueError: several labels for a prior without batch axes.

    >>> prior = lambda params, label=None: Normal(jnp.zeros(2), 1.0)
    >>> decode = lambda params, z, label=None: Normal(z @ params, 1.0)
    >>> model = VAE(None, None, prior, decode)
    >>> generate(jax.random.key(0), model, jnp.ones((2, 3)), sample_shape=5).mean.shape
    (5, 3)
    """
    prior = model.prior(params, label)
    z = sample(key, prior, sample_shape)
    if (
        not isinstance(prior, Joint | Ancestral)
        and len(foreign.shape(prior)) == 1
        and _are_classes(label)
    ):
        raise ValueError(
            f"label has shape {jnp.shape(label)} but the prior has no batch axes, so that draws "
            "and labels would be paired: give make_vae prior=networks.StandardPrior(latent_dim)"
        )
    return model.decode(params, z, label)


def _are_classes(label: Any) -> bool:
    """Whether a label is several classes; of what else it may be, only the network knows."""
    if label is None or not jnp.ndim(label):
        return False
    return jnp.issubdtype(jnp.asarray(label).dtype, jnp.integer)


def reconstruct(model: VAE, params: Params, x: Array, label: Any = None) -> Any:
    """p(x|z) at z = E_q[z|x]; deterministic.

    Of a `Flow`, whose mean has no closed form, z is where the mean of its base is taken.

    Args:
      model: the VAE.
      params: its parameters.
      x: [*b, *event].
      label: [*b] or None.

    Returns:
      The likelihood, batch axes [*b].

    >>> encode = lambda params, x, label=None: Normal(x / params, 1.0)
    >>> decode = lambda params, z, label=None: Normal(z * params, 1.0)
    >>> reconstruct(VAE(None, encode, None, decode), 2.0, jnp.ones((1, 3))).mean
    Array([[1., 1., 1.]], dtype=float32)
    """
    return model.decode(params, location(model.encode(params, x, label)), label)


def transfer(model: VAE, params: Params, x: Array, label: Any, new_label: Any) -> Any:
    """x decoded under another label, in the style it has; deterministic.

    The style is where E_q[z|x,c] stands in p(z|c), in standard deviations from its mean; z is put
    at the same place in p(z|c'). Where both priors are N(0, I), z stays as it is.

    Args:
      model: a conditional VAE whose priors are `Normal`.
      params: its parameters.
      x: [*b, *event].
      label: [*b], of x.
      new_label: [*b].

    Returns:
      The likelihood, batch axes [*b].

    >>> encode = lambda params, x, label=None: Normal(x, 1.0)
    >>> prior = lambda params, label=None: Normal(label, 1.0)
    >>> decode = lambda params, z, label=None: Normal(z, 1.0)
    >>> x, label, new_label = jnp.array([3.0]), jnp.array([2.0]), jnp.array([7.0])
    >>> transfer(VAE(None, encode, prior, decode), None, x, label, new_label).mean
    Array([8.], dtype=float32)
    """
    old, new = model.prior(params, label), model.prior(params, new_label)
    style = (location(model.encode(params, x, label)) - old.mean) / old.scale
    return model.decode(params, new.mean + new.scale * style, new_label)


def interpolate(
    model: VAE, params: Params, x_from: Array, x_to: Array, num: int, label: Any = None
) -> Any:
    """p(x|z) along the straight line between two posterior means, ends included.

    Args:
      model: the VAE.
      params: its parameters.
      x_from: [*b, *event].
      x_to: [*b, *event].
      num: points on the line, two at least.
      label: [*b] or None.

    Returns:
      The likelihood, batch axes [num, *b].

    Raises:
      ValueError: num is less than 2.

    >>> encode = lambda params, x, label=None: Normal(x / params, 1.0)
    >>> decode = lambda params, z, label=None: Normal(z * params, 1.0)
    >>> model = VAE(None, encode, None, decode)
    >>> interpolate(model, 2.0, jnp.array([0.0]), jnp.array([1.0]), num=3).mean
    Array([[0. ], [0.5], [1. ]], dtype=float32)
    """
    if num < 2:
        raise ValueError(f"num is {num}: a line with both its ends has 2 points at least")
    start, end = (location(model.encode(params, x, label)) for x in (x_from, x_to))
    z = jax.tree.map(lambda start, end: jnp.linspace(start, end, num), start, end)
    return model.decode(params, z, label)


def traverse(
    model: VAE, params: Params, x: Array, values: ArrayLike | Sequence[float], label: Any = None
) -> Any:
    """p(x|z) with one latent dimension at a time set to each value, the rest at the posterior mean.

    Args:
      model: the VAE.
      params: its parameters.
      x: [*b, *event].
      values: [V], in units of the prior's standard deviation when the prior is N(0, I).
      label: [*b] or None.

    Returns:
      The likelihood, batch axes [Z, V, *b].

    Raises:
      TypeError: z is of several latents.

    >>> encode = lambda params, x, label=None: Normal(x / params, 1.0)
    >>> decode = lambda params, z, label=None: Normal(z * params, 1.0)
    >>> model = VAE(None, encode, None, decode)
    >>> traverse(model, 2.0, jnp.zeros(2), values=jnp.array([1.0])).mean
    Array([[[2., 0.]], [[0., 2.]]], dtype=float32)
    """
    mean = location(model.encode(params, x, label))
    if not hasattr(mean, "shape"):
        raise TypeError(
            f"z is a {type(mean).__name__} of several latents: decode changed ones by model.decode"
        )
    latent_dim, values = mean.shape[-1], jnp.asarray(values, mean.dtype)

    def with_value(dimension: Array, value: Array) -> Array:
        changed: Array = mean.at[..., dimension].set(value)
        return changed

    over_values = jax.vmap(with_value, in_axes=(None, 0))
    z = jax.vmap(over_values, in_axes=(0, None))(jnp.arange(latent_dim), values)
    return model.decode(params, z, label)
