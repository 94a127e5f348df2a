"""Flax Linen networks for vectors and images of any shape, and what makes distributions of them.

A network maps [*b, *event] to [*b, *output_shape]: `MLP`, `ConvEncoder`, `ConvDecoder`. `Encoder`,
`BernoulliDecoder` and `NormalDecoder` wrap one and return a distribution; so do
`FullCovarianceEncoder`, `FlowEncoder` and `PowerSphericalEncoder`. `MixturePrior`, `FlowPrior` and
`SphericalPrior` are given nothing. Nothing else in vae_jax imports flax.

A network whose `condition` is a `ClassCondition` or a `FloatCondition` takes a label beside its
input, and joins the two: flattened and concatenated before a dense layer, as channels before a
convolution. The label's batch axes are the input's, or the last of them: labels [B] stand for all
draws z [S, B, Z].
"""

from vae_jax.networks.condition import ClassCondition, FloatCondition
from vae_jax.networks.conv import ConvDecoder, ConvEncoder, StridedConv, TransposedConv
from vae_jax.networks.flows import (
    AutoregressiveLayer,
    CouplingLayer,
    FlowEncoder,
    FlowPrior,
    PlanarLayer,
)
from vae_jax.networks.heads import BernoulliDecoder, Encoder, NormalDecoder, StandardPrior
from vae_jax.networks.initializers import constant_bias, logit
from vae_jax.networks.latents import (
    FullCovarianceEncoder,
    MixturePrior,
    PowerSphericalEncoder,
    SphericalPrior,
)
from vae_jax.networks.mlp import MLP
from vae_jax.networks.precision import matmul_bfloat16

__all__ = [
    "MLP",
    "AutoregressiveLayer",
    "BernoulliDecoder",
    "ClassCondition",
    "ConvDecoder",
    "ConvEncoder",
    "CouplingLayer",
    "Encoder",
    "FloatCondition",
    "FlowEncoder",
    "FlowPrior",
    "FullCovarianceEncoder",
    "MixturePrior",
    "NormalDecoder",
    "PlanarLayer",
    "PowerSphericalEncoder",
    "SphericalPrior",
    "StandardPrior",
    "StridedConv",
    "TransposedConv",
    "constant_bias",
    "logit",
    "matmul_bfloat16",
]
