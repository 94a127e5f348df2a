"""Distributions as frozen pytrees; `sample`, `log_prob` and `kl_divergence` of them.

A distribution over `*event` dimensions with batch axes `*b` holds parameters of shape
[*b, *event].  Log-probabilities and divergences are in nats, of shape [*b]: summed over the event,
never over the batch.  They are computed in the widest dtype of what they are of (the value and the
parameters, or both distributions' parameters), so no parameter is cut to a narrower input, and
given in the narrowest; each is float32 at least, so a bfloat16 network loses nothing in the sums.
Draws have the dtype of the mean or the logits; those of a `Categorical` and of levels are integers.

A value is scored by a distribution where the shorter of their shapes is the last axes of the
longer. No axis of size 1 is stretched, but where both ask for it: of equal rank, each with a batch
axis of size 1 where the other's is longer. So a `Normal` [1, 10, 8] scores values [64, 1, 8], and
gives each of 64 under each of 10, the components of a mixture say.

Distributions of other libraries (distrax, NumPyro, TFP) are accepted wherever these are. They
compute in the dtype of their own parameters.
"""

from vae_jax.distributions.ancestral import Ancestral, Draw, draw, given
from vae_jax.distributions.bernoulli import Bernoulli
from vae_jax.distributions.categorical import Categorical
from vae_jax.distributions.continuous_bernoulli import ContinuousBernoulli
from vae_jax.distributions.counts import NegativeBinomial, Poisson, ZeroInflated
from vae_jax.distributions.discretized_logistic import (
    DiscretizedLogistic,
    MixtureOfDiscretizedLogistics,
)
from vae_jax.distributions.divergence import kl_divergence
from vae_jax.distributions.drawn import sample_scored
from vae_jax.distributions.flow import Flow
from vae_jax.distributions.heavy_tailed import Laplace, StudentT
from vae_jax.distributions.joint import Joint
from vae_jax.distributions.markov import MarkovChain
from vae_jax.distributions.masked import Columns, Masked
from vae_jax.distributions.mixture import Mixture, vamp_mixture
from vae_jax.distributions.normal import MultivariateNormal, Normal, optimal_scale
from vae_jax.distributions.ordered import OrderedLogistic
from vae_jax.distributions.protocol import Distribution, log_prob, sample
from vae_jax.distributions.relaxed import RelaxedBernoulli, RelaxedCategorical
from vae_jax.distributions.sphere import PowerSpherical, SphericalUniform
from vae_jax.distributions.transforms import Coupling, InverseAutoregressive, Planar

__all__ = [
    "Ancestral",
    "Bernoulli",
    "Categorical",
    "Columns",
    "ContinuousBernoulli",
    "Coupling",
    "DiscretizedLogistic",
    "Distribution",
    "Draw",
    "Flow",
    "InverseAutoregressive",
    "Joint",
    "Laplace",
    "MarkovChain",
    "Masked",
    "Mixture",
    "MixtureOfDiscretizedLogistics",
    "MultivariateNormal",
    "NegativeBinomial",
    "Normal",
    "OrderedLogistic",
    "Planar",
    "Poisson",
    "PowerSpherical",
    "RelaxedBernoulli",
    "RelaxedCategorical",
    "SphericalUniform",
    "StudentT",
    "ZeroInflated",
    "draw",
    "given",
    "kl_divergence",
    "log_prob",
    "optimal_scale",
    "sample",
    "sample_scored",
    "vamp_mixture",
]
