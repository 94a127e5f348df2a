"""The options of a run, as dataclasses; tyro makes the command line of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro


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
    a .npz file that has one, or one for each split (x_train, x_test and the like), and maybe
    observed, bool, of pixels that are known; a folder of pictures, the names of its sub-folders
    being their classes, with splits of its own where these are train, test and maybe validation; a
    folder of ArrayRecord files of pictures, or of tf.train.Examples with an image and a label; or
    tfds:NAME, prepared by TensorFlow Datasets. Without splits of its own a tenth, chosen by the
    images' content, is the test set. A table, .csv, .parquet or .feather, counts, .h5ad or .mtx,
    and sequences, .jsonl, have options of their own: see train DATA.csv --help. DATA may be a URL,
    https://, s3://, gs:// or hf://datasets/..., whose file or folder is kept in VAE_JAX_CACHE or
    ~/.cache/vae_jax."""
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
    condition: str | None = None
    """NAME or NAME,NAME: numbers or classes of each image that encoder, decoder and prior are told,
    so that pictures can be asked for by them. Columns of labels.csv in a folder, whose first column
    names the pictures' files; or arrays of a .npz file, NAME, or NAME_train and NAME_test beside
    x_train and x_test. NAME=KIND is another kind than is found and printed: number, positive, date,
    category, ordered, boolean."""
    images_key: str | None = None
    """Of the images in a .npz file whose arrays have other names than images, x, x_train, ..."""
    labels_key: str | None = None
    """Of the labels in a .npz file whose arrays have other names than labels, y, y_train, ..."""
    data_dir: Path | None = None
    """TensorFlow Datasets' folder of prepared data; its own default and TFDS_DATA_DIR hold."""


@dataclass(frozen=True)
class UsedData:
    """What a trained run is used on."""

    dataset: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[DATA]")] = None
    """A folder of pictures, a .npy or .npz array, or tfds:NAME, as train takes them; or mnist,
    fashion_mnist, binarized_mnist or digits, where a folder of that name is ./mnist. All of it, but
    the test split alone where there are splits. The run's own test set when not given."""
    split: Literal["train", "validation", "test"] | None = None
    """Of data that have splits, the run's own among them; test when not given."""
    data: str | None = None
    """Where the run's own data lie, if they have moved and are read."""
    resize: bool = False
    """Crop pictures to a square in the middle and resize it to the size of the run's, as a run that
    was given an --image-size does in any case."""
    labels: Path | None = None
    """A .npy file with the labels of a .npy DATA."""
    images_key: str | None = None
    """Of the images in a .npz file whose arrays have other names than images, x, x_train, ..."""
    labels_key: str | None = None
    """Of the labels in a .npz file whose arrays have other names than labels, y, y_train, ..."""
    data_dir: Path | None = None
    """TensorFlow Datasets' folder of prepared data; the run's own when not given."""


@dataclass(frozen=True)
class Model:
    """The networks."""

    network: (
        Literal["mlp", "gated", "residual", "conv", "residual_conv", "ladder", "top_down"] | None
    ) = None
    """mlp is the fastest on a CPU. gated lets each layer's linear part through a gate, as the
    VampPrior's models do, with twice the parameters of mlp. residual has a way around each pair of
    layers, for many --hidden. conv has the fewest parameters. residual_conv is as deep as the
    pictures' size needs: for 32 x 32 and more, and an accelerator. Two have layers of latents, the
    KL of each of which is told: ladder, dense, one for each of --hidden, which wants a --kl-warmup;
    top_down, a small very deep VAE, residual convolutions with latents at each place, slow. When
    not given: mlp, and conv of your own pictures in colour or larger than 64 x 64."""
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
    open; mixture_of_logistics, five of these for a pixel, whose channels agree, has the fewest bits
    in colour, and pale pictures, as one channel tells the next what codes would; categorical, 256
    numbers for each byte, of any shape, and slow. When not given: bernoulli of zeros and ones;
    discretized_logistic of your own colours, where they are bytes; and normal of all else."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the dense layers' matrix products; bfloat16 still sums in float32."""
    latent_dim: int | None = None
    """Dimensions that do not pay for their KL switch themselves off. 40 when not given, more than
    MNIST uses; 128 of your own images in grey or colour. Of a ladder's layer next to the pictures,
    and half as many of each above it; of top_down, of each place: 16 when not given."""
    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers of mlp, gated, residual and ladder; the decoder has them in
    reverse. 400 and 400 when not given, 400, 200 and 100 of a ladder."""
    channels: tuple[int, ...] | None = None
    """Channels of the convolutions; each halves height and width. When not given: 32 and 64 of
    conv; of residual_conv, and of conv where the pictures had it chosen, as many as end at 7 x 7 or
    less, from 32 up to 256. Of top_down one number, 32 when not given, for all sizes."""
    blocks: tuple[int, ...] | None = None
    """Of top_down: residual blocks, each with a layer of latents, at the pictures' size, at half of
    it, and so on. When not given none at the first, 2 at the last, where 7 x 7 or less are left,
    and 1 at those between."""
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
    """Passes over the training set. When not given: 18 of MNIST and its like, 22 by nadam
    where that is the default, 200 of the small digits, and of your own images as many as make
    10,000 steps, or 4,000 of what is slow: convolutions, mixture_of_logistics and categorical."""
    patience: int | None = None
    """Epochs without a better validation ELBO after which training ends; see --select for which
    epoch is the result. 0 never ends it. When not given: of your own images as many as make a tenth
    of these steps; 0 else, and with --beta or --free-bits, whose aim is not the ELBO."""
    batch_size: int | None = None
    """Examples a step, over all devices. 128 when not given, and less of few images, said in a
    line."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after the other, where it does not fit at once."""
    optimizer: Literal["adam", "nadam"] | None = None
    """After a warm-up of 500 steps at most adam's rate falls by a cosine to 1 %. nadam is Adam with
    Nesterov's momentum (Dozat 2016) and an epsilon of 1e-4; its rate stays for half of the steps
    and falls in a line to 0.
    When not given: nadam of mnist, fashion_mnist and digits, binarized, under an mlp and a prior
    that is standard or conditional; adam else."""
    learning_rate: float | None = None
    """At its peak. When not given: 0.001 under a Normal likelihood and 0.002 else; twice that of
    nadam."""
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

    objective: Literal["elbo", "iwae", "miwae", "ciwae", "renyi"] = "elbo"
    """elbo is the bound that the encoder is best for; iwae weighs --num-draws draws and is tighter,
    so the decoder learns more of p(x), at the cost of as many decodings. Between the two, for an
    encoder that learns from less noise: miwae is the mean of --num-groups iwaes, ciwae has
    --elbo-share of the elbo, and renyi is the iwae at --alpha=0 and the elbo at 1."""
    gradient: (
        Literal[
            "reparameterized",
            "estimated_kl",
            "sticking_the_landing",
            "doubly_reparameterized",
            "vimco",
            "reweighted_wake_sleep",
        ]
        | None
    ) = None
    """reparameterized goes through the draws, the elbo's KL being exact. Of the elbo: estimated_kl
    takes the KL from the draws too, for comparison; sticking_the_landing leaves out what has mean
    zero, with less noise the better the encoder. Of the iwae: doubly_reparameterized keeps the
    encoder's signal as draws grow; vimco differentiates no draw, as discrete latents would need;
    reweighted_wake_sleep fits the encoder to the posterior, whatever the bound. When not given:
    sticking_the_landing of mnist and digits where nadam is the default of --optimizer and is taken,
    the posterior is normal and no other option is of the objective; reparameterized else."""
    num_draws: int = 1
    """Draws of z for each image and step: a less noisy gradient of the elbo, a tighter iwae."""
    num_groups: int | None = None
    """Of the draws of a miwae; divides --num-draws."""
    elbo_share: float | None = None
    """Of the elbo in a ciwae, from 0 to 1; 0.05 is Rainforth et al. 2018's."""
    alpha: float | None = None
    """Order of renyi's divergence, from 0 to 1."""
    beta: float = 1.0
    """Weight of the KL: above 1 latents that are used less and apart (beta-VAE), below 1 sharper
    reconstructions and worse samples; only 1 is the ELBO."""
    kl_warmup: int = 0
    """Epochs in which the KL's weight rises in a line from 0 to --beta, lest latents close before
    the decoder has learned to use them."""
    free_bits: float = 0.0
    """Nats of each latent's KL, or of each layer's, on average over a batch, that cost nothing:
    none is worth closing below them; 0.01 to 0.5 is usual."""
    penalty: Literal[
        "none", "total_correlation", "dip_vae_i", "dip_vae_ii", "mmd", "sliced_wasserstein"
    ] = "none"
    """What the latents of a batch pay together. For latents that mean one thing each:
    total_correlation (beta-TCVAE), dip_vae_i and dip_vae_ii (their covariance drawn to I). For
    codes that lie as the prior's draws do, with --beta=0 or less than 1: mmd (InfoVAE) and
    sliced_wasserstein."""
    penalty_weight: float | None = None
    """Of the penalty beside the elbo: 5 for total_correlation, 10 for dip_vae_i, dip_vae_ii and
    sliced_wasserstein, 1000 for mmd are usual."""


CONVOLUTIONS = ("conv", "residual_conv", "top_down")
HIERARCHIES = ("ladder", "top_down")
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
    "miwae": ("reparameterized",),
    "ciwae": ("reparameterized",),
    "renyi": ("reparameterized",),
}
# The number that each of these needs, of which it alone has a use.
NUMBERS = {"miwae": "num_groups", "ciwae": "elbo_share", "renyi": "alpha"}
LEARNED_PRIORS = ("mixture", "vamp", "flow")


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
    restartable: bool = False
    """--resume where --output holds a run, and a new one where it does not: for a scheduler, which
    starts the same command again after a failure or a time limit."""
    overwrite: bool = False
    """Delete a finished or broken run in --output first."""
    keep: int = 3
    """How many of the newest checkpoints stay."""
    checkpoint_seconds: float = 10.0
    """A checkpoint is written when the last one is older than this, within an epoch too: about so
    much work is lost when the machine fails."""
    tensorboard: bool = False
    """Write TensorBoard event files too."""
    select: Literal["best", "last"] | None = None
    """Which epoch is the result: best keeps the parameters of the one whose validation ELBO is
    highest, beside the last. When not given: best; but last of MNIST and its like without a
    --patience, as their numbers compare with published ones, and with --beta, --free-bits or
    --penalty, whose aim is not the ELBO."""
    max_minutes: float | None = None
    """Minutes after which training ends, those of a resumed run's earlier processes counted in; the
    test set is measured then, and --resume with more goes on."""
    seeds: int = 1
    """How many runs, of --seed and the numbers after it, each in a folder seed=N in --output, with
    the mean over them and their deviation. On a CPU as many at once as there are cores, each to the
    bit what it is alone; on an accelerator as one program, each to rounding."""
    sweep: tuple[str, ...] = ()
    """NAME=VALUE,VALUE,... for options that take each of these values in turn, such as
    latent-dim=8,16 "hidden=64,128 64"; of several every combination is a run, or as many as
    --seeds."""


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
    """What is learned."""  # or --help shows the comment above
