"""The options of a run, as dataclasses; tyro makes the command line of them."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vae_jax.run.errors import UsageError


@dataclass(frozen=True)
class Data:
    """What is learned."""

    dataset: Literal["auto", "mnist", "fashion_mnist", "binarized_mnist", "digits"] = "auto"
    """auto is MNIST where it can be had within seconds, else scikit-learn's bundled digits, said
    loudly. A named data set is never replaced by another."""
    binarization: Literal["dynamic", "threshold", "none"] = "dynamic"
    """dynamic draws each pixel afresh at every minibatch, the protocol of Burda et al. 2016;
    threshold cuts at half; none keeps the greys, for which there are many a --likelihood. Bounds
    under different binarizations cannot be compared."""
    data_dir: Path | None = None
    """TensorFlow Datasets' folder of prepared data; its own default and TFDS_DATA_DIR hold."""
    manual_dir: Path | None = None
    """A folder with the original files, for a machine without a network; without a --data-dir they
    are prepared there too."""


@dataclass(frozen=True)
class OwnData:
    """What is learned."""

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A .npy array of images [N, H, W] or [N, H, W, C], bytes, 16-bit numbers or floats in [0, 1];
    a .npz file that has one, or one for each split (x_train, x_test and the like); a folder of
    pictures, the names of its sub-folders being their classes, with splits of its own where these
    are train, test and maybe validation; or tfds:NAME, prepared by TensorFlow Datasets. Without
    splits of its own a tenth, chosen by the images' content, is the test set. A table, .csv,
    .parquet or .feather, has options of its own: see train DATA.csv --help."""
    binarization: Literal["dynamic", "threshold", "none"] = "none"
    """none keeps greys and colours, for which there are many a --likelihood; dynamic and threshold
    are for black and white."""
    image_size: int | None = None
    """Crop pictures to a square in the middle and resize it to so many pixels a side."""
    background: str = "white"
    """The colour that transparent pictures are laid on, a name or #rrggbb."""
    test: Path | None = None
    """Where the test set is, of the same kind as DATA, which is then all for training."""
    labels: Path | None = None
    """A .npy file with the labels of a .npy DATA."""
    images_key: str | None = None
    """Of the images in a .npz file whose arrays have other names than images, x, x_train, ..."""
    labels_key: str | None = None
    """Of the labels in a .npz file whose arrays have other names than labels, y, y_train, ..."""
    data_dir: Path | None = None
    """TensorFlow Datasets' folder of prepared data; its own default and TFDS_DATA_DIR hold."""


@dataclass(frozen=True)
class Model:
    """The networks."""

    network: Literal["mlp", "gated", "residual", "conv", "residual_conv"] = "mlp"
    """mlp is the fastest on a CPU. gated lets each layer's linear part through a gate, as the
    VampPrior's models do, with twice the parameters of mlp. residual has a way around each pair of
    layers, for many --hidden. conv has the fewest parameters. residual_conv is as deep as the
    pictures' size needs: for 32 x 32 and more, and an accelerator."""
    likelihood: (
        Literal[
            "bernoulli",
            "normal",
            "sigma_vae",
            "normal_per_pixel",
            "laplace",
            "student_t",
            "continuous_bernoulli",
            "discretized_logistic",
            "mixture_of_logistics",
            "categorical",
        ]
        | None
    ) = None
    """p(x|z), in whose bits per dimension all that are of bytes compare. Of zeros and ones:
    bernoulli. Of greys and colours: normal, of one learned scale; sigma_vae, the same, but training
    takes the scale that is best for each batch, so none has to be found; normal_per_pixel, a scale
    for each pixel of each image, sure where it can be; laplace, an absolute error, for edges;
    student_t, for outliers; continuous_bernoulli, what cross-entropy of greys lacks to be a
    density. Of bytes alone: discretized_logistic, the probability of a byte, the ends 0 and 255
    open; mixture_of_logistics, five of these for a pixel, whose channels agree; categorical, 256
    numbers for each byte, of any shape, and slow. When not given: bernoulli of zeros and ones, and
    normal of all else."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the dense layers' matrix products; bfloat16 still sums in float32."""
    latent_dim: int | None = None
    """Dimensions that do not pay for their KL switch themselves off. 40 when not given, more than
    MNIST uses; 128 of your own images in grey or colour."""
    hidden: tuple[int, ...] = (400, 400)
    """Widths of the hidden layers of mlp, gated and residual; the decoder has them in reverse."""
    channels: tuple[int, ...] | None = None
    """Channels of the convolutions; each halves height and width. When not given: 32 and 64 of
    conv; of residual_conv as many as end at 7 x 7 or less, from 32 up to 256."""
    conditional: bool = False
    """Learn p(x|c), c the label, whose embedding goes into the encoder and the decoder."""
    posterior: Literal["normal", "full", "planar", "iaf", "coupling", "power_spherical"] = "normal"
    """normal is diagonal, fast, and has an exact KL; full knows how latents go together. Of the
    flows, whose KL is estimated: planar bends a few latents, cheaply; iaf is the tightest for many
    and slow to score what it did not draw; coupling is as fast both ways. power_spherical is of
    unit vectors beside a uniform prior, for directions in few dimensions."""
    prior: Literal["conditional", "standard", "mixture", "vamp", "flow"] = "conditional"
    """conditional is p(z|c), learned, with --conditional, and N(0, I) without; standard is N(0, I),
    or of power_spherical uniform. Learned, so that draws fall where codes lie: mixture, of
    Gaussians; vamp, of the encoder's own posteriors at pictures that are learned too, the best of
    the two and the dearest; flow, couplings of N(0, I)."""
    num_components: int | None = None
    """Of a mixture or a vamp prior; 500 when not given."""
    num_transforms: int = 4
    """Of a flow, posterior or prior."""
    embedding_dim: int = 16
    """Size of a label's embedding; it changes little, as ten classes need few dimensions."""


@dataclass(frozen=True)
class Training:
    """How it learns."""

    epochs: int | None = None
    """Passes over the training set. When not given: 18 of MNIST and its like, 200 of the small
    digits, and of your own images as many as make 10,000 steps."""
    patience: int | None = None
    """Epochs without a better validation ELBO after which training ends; the parameters of the best
    epoch are the result. 0 never ends it, and takes the last. When not given: as many as make 1,000
    steps of your own images; 0 else, and with --beta or --free-bits, whose aim is not the ELBO."""
    batch_size: int | None = None
    """Examples a step, over all devices. 128 when not given, and less of few images, said in a
    line."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after the other, where it does not fit at once."""
    learning_rate: float | None = None
    """Adam's, at its peak: it warms up for 500 steps at most, then falls by a cosine to 1 %. 0.001
    under a Normal likelihood and 0.002 else when not given."""
    clip_norm: float | Literal["auto"] = "auto"
    """Longest gradient; longer ones are scaled down to it. auto is ten times the recent ones, which
    leaves a healthy run as it is; inf never."""
    average_decay: float = 0.0
    """Decay of a moving average of the parameters, used for evaluation; 0 for none."""
    seed: int = 0
    """Of the parameters, the order of the data and all noise."""
    init_from: Path | None = None
    """Folder of another run, whose parameters this one starts from: fine-tuning, on other data."""


@dataclass(frozen=True)
class Objective:
    """What training maximises. What is reported is the ELBO and log p(x), whatever this is."""

    objective: Literal["elbo", "iwae"] = "elbo"
    """elbo is the bound that the encoder is best for; iwae weighs --num-draws draws and is tighter,
    so the decoder learns more of p(x), at the cost of as many decodings."""
    gradient: Literal[
        "reparameterized",
        "estimated_kl",
        "sticking_the_landing",
        "doubly_reparameterized",
        "vimco",
        "reweighted_wake_sleep",
    ] = "reparameterized"
    """reparameterized goes through the draws, the elbo's KL being exact. Of the elbo: estimated_kl
    takes the KL from the draws too, for comparison; sticking_the_landing leaves out what has mean
    zero, with less noise the better the encoder. Of the iwae: doubly_reparameterized keeps the
    encoder's signal as draws grow; vimco differentiates no draw, as discrete latents would need;
    reweighted_wake_sleep fits the encoder to the posterior, whatever the bound."""
    num_draws: int = 1
    """Draws of z for each image and step: a less noisy gradient of the elbo, a tighter iwae."""
    beta: float = 1.0
    """Weight of the KL: above 1 latents that are used less and apart (beta-VAE), below 1 sharper
    reconstructions and worse samples; only 1 is the ELBO."""
    kl_warmup: int = 0
    """Epochs in which the KL's weight rises in a line from 0 to --beta, lest latents close before
    the decoder has learned to use them."""
    free_bits: float = 0.0
    """Nats of each latent's KL, on average over a batch, that cost nothing: none is worth closing
    below them; 0.01 to 0.5 is usual."""


CONVOLUTIONS = ("conv", "residual_conv")
# Likelihoods of zeros and ones, of all in [0, 1], and of bytes.
BINARY = ("bernoulli",)
DENSITIES = (
    "normal",
    "sigma_vae",
    "normal_per_pixel",
    "laplace",
    "student_t",
    "continuous_bernoulli",
)
OF_BYTES = ("discretized_logistic", "mixture_of_logistics", "categorical")


# Those that are of each objective.
GRADIENTS = {
    "elbo": ("reparameterized", "estimated_kl", "sticking_the_landing"),
    "iwae": ("reparameterized", "doubly_reparameterized", "vimco", "reweighted_wake_sleep"),
}


@dataclass(frozen=True)
class Devices:
    """On how many devices and hosts, and what each of them holds."""

    num_devices: int | None = None
    """Devices that share a batch; all that there are when not given."""
    shard_parameters: bool = False
    """Split parameters and optimizer state over the devices, for networks that fit on none."""
    remat: bool = False
    """Compute the decoder again for its gradient, in place of keeping its activations."""
    stream: bool = False
    """Read the training set while it trains, in place of holding it on every device; as is done
    where it is larger than 1 GB, and where there are many processes."""
    workers: int = 0
    """Processes that read what is streamed, for images that are dear to decode; 0 is a thread."""
    coordinator: str | None = None
    """HOST:PORT that process 0 listens on, for a run of many processes; auto where SLURM, a TPU pod
    or Kubernetes says it."""
    num_processes: int | None = None
    """With --coordinator=HOST:PORT: how many processes, each started with the same options."""
    process_id: int | None = None
    """With --coordinator=HOST:PORT: which of them this is, from 0."""


@dataclass(frozen=True)
class Evaluation:
    """What is measured at the end, on the test set."""

    num_importance_samples: int = 500
    """Draws for each test image's log p(x); the literature's 5000 take ten times as long."""
    num_class_samples: int = 20
    """With --conditional: draws for each test image under each of the classes, for Bayes' rule."""


@dataclass(frozen=True)
class Run:
    """Where it runs and what it leaves."""

    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto is the best there is; a named one that is missing ends the run."""
    output: Path | None = None
    """Folder of the results; runs/DATASET-TIME when not given."""
    resume: bool = False
    """Go on with the run in --output, with the options it was started with."""
    overwrite: bool = False
    """Delete a finished or broken run in --output first."""
    keep: int = 3
    """How many of the newest checkpoints stay."""
    checkpoint_seconds: float = 10.0
    """A checkpoint is written when the last one is older than this, within an epoch too: about so
    much work is lost when the machine fails."""
    tensorboard: bool = False
    """Write TensorBoard event files too."""


@dataclass(frozen=True)
class Options:
    """A variational autoencoder on images, from one command to numbers and pictures."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    objective: Objective = field(default_factory=Objective)
    devices: Devices = field(default_factory=Devices)
    evaluation: Evaluation = field(default_factory=Evaluation)
    run: Run = field(default_factory=Run)


@dataclass(frozen=True)
class OwnOptions(Options):
    """A variational autoencoder on one's own images, from one command to numbers and pictures."""

    data: OwnData  # type: ignore[assignment]  # where Options has Data


def check(options: Options) -> None:
    """Raises UsageError for the first option whose value cannot be used."""
    model, training = options.model, options.training
    check_at_least(1, embedding_dim=model.embedding_dim, num_transforms=model.num_transforms)
    data: Data | OwnData = options.data
    named = data if isinstance(data, Data) else None
    if named is not None and model.conditional and named.dataset == "binarized_mnist":
        raise UsageError(
            "--conditional needs labels, which binarized_mnist does not have: choose another "
            "--dataset"
        )
    if named is not None and named.dataset == "binarized_mnist" and named.binarization != "dynamic":
        raise UsageError(
            f"--binarization is {named.binarization} but binarized_mnist is binary as it "
            "comes: leave it out"
        )
    given = {
        "latent_dim": model.latent_dim,
        "num_components": model.num_components,
        "epochs": training.epochs,
        "batch_size": training.batch_size,
        "accumulate": training.accumulate,
        "keep": options.run.keep,
    }
    check_at_least(1, **{name: value for name, value in given.items() if value is not None})
    check_at_least(0, workers=options.devices.workers, patience=training.patience or 0)
    _check_latents(options)
    _check_objective(options)
    _check_devices(options)
    if isinstance(options.data, OwnData) and options.data.image_size is not None:
        check_at_least(1, image_size=options.data.image_size)
    check_seed(training.seed)
    check_at_least(2, **dataclasses.asdict(options.evaluation))
    if model.channels is not None and model.network not in CONVOLUTIONS:
        raise UsageError(
            f"--channels is of convolutions but --network={model.network} has none: leave it out, "
            f"or choose {' or '.join(CONVOLUTIONS)}"
        )
    for name, widths in ("hidden", model.hidden), ("channels", model.channels):
        if widths is not None and (not widths or min(widths) < 1):
            raise UsageError(f"--{name} is {widths}: give one positive width or more")
    if training.learning_rate is not None:
        check_learning_rate(training.learning_rate)
    if training.clip_norm != "auto" and not training.clip_norm > 0:
        raise UsageError(f"--clip-norm is {training.clip_norm}: it must be positive")
    if not 0 <= training.average_decay < 1:
        raise UsageError(f"--average-decay is {training.average_decay}: it must be in [0, 1)")
    if not 0 <= options.run.checkpoint_seconds < math.inf:
        raise UsageError(
            f"--checkpoint-seconds is {options.run.checkpoint_seconds}: it must be 0 or more, and "
            "finite"
        )
    if options.run.resume and options.run.output is None:
        raise UsageError("--resume needs --output=DIR, the folder of the run to go on with")
    if options.run.resume and options.run.overwrite:
        raise UsageError("--resume goes on with a run and --overwrite deletes it: give one of them")


LEARNED_PRIORS = ("mixture", "vamp", "flow")


def _check_latents(options: Options) -> None:
    model = options.model
    posterior, prior = f"--posterior={model.posterior}", f"--prior={model.prior}"
    if model.conditional and model.prior in LEARNED_PRIORS:
        raise UsageError(f"{prior} knows no classes: leave it or --conditional out")
    if model.posterior == "power_spherical" and model.conditional:
        raise UsageError(f"{posterior} has no conditional prior: leave it or --conditional out")
    if model.posterior == "power_spherical" and model.prior in ("mixture", "flow"):
        raise UsageError(
            f"{prior} is of all vectors and {posterior} of unit ones: take --prior=standard or vamp"
        )
    if model.num_components is not None and model.prior not in ("mixture", "vamp"):
        raise UsageError(f"--num-components is of a mixture, not of {prior}: leave it out")
    of_two = [o for o in (posterior, prior) if o.endswith(("=coupling", "=flow", "_spherical"))]
    if of_two and model.latent_dim == 1:
        raise UsageError(f"{of_two[0]} wants 2 latents or more but --latent-dim is 1")
    if options.objective.free_bits and (
        model.posterior != "normal" or model.prior in LEARNED_PRIORS
    ):
        raise UsageError(
            "--free-bits is of each latent's own KL, which only --posterior=normal beside a "
            f"Gaussian prior has: leave it out, or {posterior} and {prior}"
        )


def _check_objective(options: Options) -> None:
    chosen = options.objective
    check_at_least(1, num_draws=chosen.num_draws)
    check_at_least(0, kl_warmup=chosen.kl_warmup)
    for name, value in ("beta", chosen.beta), ("free-bits", chosen.free_bits):
        if not 0 <= value < math.inf:
            raise UsageError(f"--{name} is {value}: it must be 0 or more, and finite")
    weighs = [
        f"--{name.replace('_', '-')}"
        for name in ("beta", "kl_warmup", "free_bits")
        if getattr(chosen, name) != getattr(Objective(), name)
    ]
    if chosen.objective != "elbo":
        if weighs:
            raise UsageError(
                f"{weighs[0]} is of the KL, which --objective={chosen.objective} has not apart: "
                "leave one of them out"
            )
        if chosen.num_draws == 1:
            raise UsageError(
                f"--objective={chosen.objective} of one draw is the elbo: give --num-draws=5, say"
            )
    gradients = GRADIENTS[chosen.objective]
    if chosen.gradient not in gradients:
        raise UsageError(
            f"--gradient={chosen.gradient} is not one of --objective={chosen.objective}: choose "
            f"from {', '.join(gradients)}"
        )
    if options.model.likelihood == "sigma_vae" and chosen.objective != "elbo":
        raise UsageError(
            f"--likelihood=sigma_vae takes one scale for all draws and --objective="
            f"{chosen.objective} weighs each: choose --likelihood=normal, or --objective=elbo"
        )
    if chosen.beta == 0 and len(weighs) > 1:
        raise UsageError(f"--beta is 0, which leaves no KL: leave {weighs[1]} out")
    if chosen.free_bits and chosen.gradient != "reparameterized":
        raise UsageError(
            f"--free-bits takes the exact KL and --gradient={chosen.gradient} does not: leave one "
            "of them out"
        )
    if chosen.free_bits and options.training.accumulate > 1:
        raise UsageError(
            "--free-bits is of the mean over a batch, which --accumulate cuts: leave one of them "
            "out"
        )


def _check_devices(options: Options) -> None:
    devices = options.devices
    if devices.num_devices is not None:
        check_at_least(1, num_devices=devices.num_devices)
    if devices.coordinator is None or devices.coordinator == "auto":
        if devices.num_processes is not None or devices.process_id is not None:
            raise UsageError(
                "--num-processes and --process-id need --coordinator=HOST:PORT, where process 0 is"
            )
    elif devices.num_processes is None or devices.process_id is None:
        raise UsageError(
            f"--coordinator={devices.coordinator} needs --num-processes and --process-id"
        )
    elif not 0 <= devices.process_id < devices.num_processes:
        raise UsageError(
            f"--process-id is {devices.process_id}: it must be from 0 to --num-processes - 1, "
            f"{devices.num_processes - 1}"
        )
    if devices.coordinator is not None and options.run.output is None:
        raise UsageError("--coordinator needs --output=DIR, a folder that all processes see")


def check_seed(seed: int) -> None:
    """Raises UsageError for a seed that JAX does not take."""
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed is {seed}: it must be from 0 to 2^63 - 1")


def check_learning_rate(rate: float) -> None:
    """Raises UsageError for a step that is none."""
    if not 0 < rate < math.inf:
        raise UsageError(f"--learning-rate is {rate}: it must be positive and finite")


def check_at_least(least: int, **values: int) -> None:
    """Raises UsageError for the first option, by its field's name, that is less."""
    for name, value in values.items():
        if value < least:
            raise UsageError(f"--{name.replace('_', '-')} is {value}: it must be {least} or more")


def moved(data: Data | OwnData, where: str | None) -> Data | OwnData:
    """The data's options with the place where they now lie, where one is given.

    Raises:
      UsageError: they are a named data set, which lies where --data-dir says.
    """
    if where is None:
        return data
    if isinstance(data, Data):
        raise UsageError(
            f"--data is {where} but the run is of {data.dataset}, which is found by its name: "
            "leave it out"
        )
    return dataclasses.replace(data, dataset=where)


def check_resumed(options: Options, stored: Options) -> None:
    """Raises UsageError where a resumed run was asked to become another one."""
    changeable = {"epochs", "patience", "learning_rate", "clip_norm", "data_dir", "manual_dir"}
    if isinstance(options.data, OwnData):  # data may have moved; their digest says if they are they
        changeable |= {"dataset", "test", "labels"}
    if (
        "auto" in (clips := {options.training.clip_norm, stored.training.clip_norm})
        and len(clips) > 1
    ):
        changeable -= {"clip_norm"}  # auto has a state, which a fixed norm has not
    for group in ("data", "model", "training", "objective"):  # devices may be others
        for item in dataclasses.fields(getattr(options, group)):
            now, then = (getattr(getattr(o, group), item.name) for o in (options, stored))
            if now != then and item.name not in changeable:
                raise UsageError(
                    f"--{item.name.replace('_', '-')} is {now} but the run in "
                    f"{options.run.output} has {then}: leave it out, or start a new run"
                )


def to_json(options: Options) -> dict[str, Any]:
    """The options as JSON values."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        return None if value == math.inf else value  # JSON has no infinity

    groups = dataclasses.asdict(options)
    of_one_command = {
        "run": ("resume", "overwrite"),
        "devices": ("coordinator", "num_processes", "process_id"),
    }
    for group, names in of_one_command.items():
        for name in names:
            del groups[group][name]
    return {name: {k: plain(v) for k, v in group.items()} for name, group in groups.items()}


def from_json(config: dict[str, Any]) -> Options:
    """The options that `to_json` wrote.

    Raises:
      KeyError, TypeError: config is not such options.
    """
    config = {name: dict(group) for name, group in config.items()}
    paths = [("data", name) for name in ("data_dir", "manual_dir", "test", "labels")]
    for group, name in (*paths, ("training", "init_from"), ("run", "output")):
        if config[group].get(name) is not None:
            config[group][name] = Path(config[group][name])
    config["model"]["hidden"] = tuple(config["model"]["hidden"])
    channels = config["model"]["channels"]
    # Of version 0.1 and 0.2 a run of an MLP has channels too.
    of_conv = channels is not None and config["model"]["network"] in CONVOLUTIONS
    config["model"]["channels"] = tuple(channels) if of_conv else None
    if config["training"]["clip_norm"] is None:
        config["training"]["clip_norm"] = math.inf
    own = "image_size" in config["data"]
    if "patience" not in config["training"]:  # version 0.1
        config["training"]["patience"] = 0
        if own:
            for name in "images_key", "labels_key":
                config["data"][name] = None
    kind: Any = OwnOptions if own else Options
    options: Options = kind(
        (OwnData if own else Data)(**config["data"]),
        Model(**config["model"]),
        Training(**config["training"]),
        Objective(**config.get("objective", {})),  # none before it could be chosen
        Devices(**config["devices"]),
        Evaluation(**config["evaluation"]),
        Run(**config["run"]),
    )
    return options
