"""Flax Linen networks for vectors and images of any shape, and what makes distributions of them.

A network maps [*b, *event] to [*b, *output_shape]: `MLP`, `GatedMLP`, `ResidualMLP`; of images
`ConvEncoder` and `ConvDecoder`, `ResidualConvEncoder` and `ResidualConvDecoder`. `Encoder` and the
decoders by their distribution's name, `NormalDecoder` say, wrap one and return a distribution; so
do `FullCovarianceEncoder`, `FlowEncoder` and `PowerSphericalEncoder`. `MixturePrior`, `FlowPrior`
and `SphericalPrior` are given nothing. `ZeroFilled`, `MaskedDecoder` and `ColumnsDecoder` are for
x with NaN; `CountsInput` and `LibraryDecoder` for counts of an
observed total. Nothing else in vae_jax imports flax.

A network whose `condition` is a `ClassCondition`, a `ColumnsCondition` or a `FloatCondition` takes
a label beside its input, and joins the two: flattened and concatenated before a dense layer, as
channels before a convolution. The label's batch axes are the input's, or the last of them: labels
[B] stand for all draws z [S, B, Z].
"""

from vae_jax.networks.condition import ClassCondition, ColumnsCondition, FloatCondition
from vae_jax.networks.conv import Conv, ConvDecoder, ConvEncoder, StridedConv, TransposedConv
from vae_jax.networks.counts import (
    CellLabel,
    CountsInput,
    LibraryDecoder,
    PoissonDecoder,
    ZeroInflatedDecoder,
)
from vae_jax.networks.flows import (
    AutoregressiveLayer,
    CouplingLayer,
    FlowEncoder,
    FlowPrior,
    PlanarLayer,
)
from vae_jax.networks.heads import (
    BernoulliDecoder,
    CategoricalDecoder,
    ClassDecoder,
    ContinuousBernoulliDecoder,
    DiscretizedLogisticDecoder,
    Encoder,
    LaplaceDecoder,
    MixtureOfDiscretizedLogisticsDecoder,
    NegativeBinomialDecoder,
    NormalDecoder,
    OrderedLogisticDecoder,
    StandardPrior,
    StudentTDecoder,
)
from vae_jax.networks.hierarchy import (
    BottomUp,
    LadderDecoder,
    LadderEncoder,
    TopDown,
    precision_weighted,
)
from vae_jax.networks.initializers import constant_bias, logit
from vae_jax.networks.latents import (
    FullCovarianceEncoder,
    MixturePrior,
    PowerSphericalEncoder,
    SphericalPrior,
)
from vae_jax.networks.missing import ColumnsDecoder, MaskedDecoder, ZeroFilled
from vae_jax.networks.mlp import MLP, GatedMLP, ResidualMLP
from vae_jax.networks.precision import matmul_bfloat16
from vae_jax.networks.residual import ResidualConvDecoder, ResidualConvEncoder, channels_for
from vae_jax.networks.sequence import (
    Combiner,
    GatedTransition,
    Smoother,
    Summary,
    Unrolled,
)

__all__ = [
    "MLP",
    "AutoregressiveLayer",
    "BernoulliDecoder",
    "BottomUp",
    "CategoricalDecoder",
    "CellLabel",
    "ClassCondition",
    "ClassDecoder",
    "ColumnsCondition",
    "ColumnsDecoder",
    "Combiner",
    "ContinuousBernoulliDecoder",
    "Conv",
    "ConvDecoder",
    "ConvEncoder",
    "CountsInput",
    "CouplingLayer",
    "DiscretizedLogisticDecoder",
    "Encoder",
    "FloatCondition",
    "FlowEncoder",
    "FlowPrior",
    "FullCovarianceEncoder",
    "GatedMLP",
    "GatedTransition",
    "LadderDecoder",
    "LadderEncoder",
    "LaplaceDecoder",
    "LibraryDecoder",
    "MaskedDecoder",
    "MixtureOfDiscretizedLogisticsDecoder",
    "MixturePrior",
    "NegativeBinomialDecoder",
    "NormalDecoder",
    "OrderedLogisticDecoder",
    "PlanarLayer",
    "PoissonDecoder",
    "PowerSphericalEncoder",
    "ResidualConvDecoder",
    "ResidualConvEncoder",
    "ResidualMLP",
    "Smoother",
    "SphericalPrior",
    "StandardPrior",
    "StridedConv",
    "StudentTDecoder",
    "Summary",
    "TopDown",
    "TransposedConv",
    "Unrolled",
    "ZeroFilled",
    "ZeroInflatedDecoder",
    "channels_for",
    "constant_bias",
    "logit",
    "matmul_bfloat16",
    "precision_weighted",
]
