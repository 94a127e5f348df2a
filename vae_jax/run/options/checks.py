"""What cannot be used among a run's options, before anything is read or compiled."""

import dataclasses
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from vae_jax.run.errors import UsageError
from vae_jax.run.options.groups import (
    CONVOLUTIONS,
    GRADIENTS,
    HIERARCHIES,
    LEARNED_PRIORS,
    NUMBERS,
    Data,
    Model,
    Objective,
    Options,
    OwnData,
    Run,
)


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
    _check_network(model)
    if training.learning_rate is not None:
        check_learning_rate(training.learning_rate)
    if training.clip_norm != "auto" and not training.clip_norm > 0:
        raise UsageError(f"--clip-norm is {training.clip_norm}: it must be positive")
    if not 0 <= training.average_decay < 1:
        raise UsageError(f"--average-decay is {training.average_decay}: it must be in [0, 1)")
    check_run(options.run)
    check_init_from(training.init_from, options.run)


def check_init_from(init_from: Path | None, run: Run) -> None:
    """Raises UsageError where the run to start from is the one that would be overwritten."""
    if init_from is None or run.output is None or run.resume:
        return
    if init_from.resolve() == run.output.resolve():
        raise UsageError(
            f"--init-from and --output are both {init_from}: name another --output, or --resume"
        )


def check_run(run: Run) -> None:
    """Raises UsageError for where a run lies and what becomes of it, of images or of a table."""
    if not 0 <= run.checkpoint_seconds < math.inf:
        raise UsageError(
            f"--checkpoint-seconds is {run.checkpoint_seconds}: it must be 0 or more, and finite"
        )
    if run.max_minutes is not None and not 0 < run.max_minutes < math.inf:
        raise UsageError(f"--max-minutes is {run.max_minutes}: it must be above 0, and finite")
    check_at_least(1, seeds=run.seeds)
    if run.resume and run.output is None:
        raise UsageError("--resume needs --output=DIR, the folder of the run to go on with")
    if run.resume and run.overwrite:
        raise UsageError("--resume goes on with a run and --overwrite deletes it: give one of them")


def _check_network(model: Model) -> None:
    if model.hidden is not None and model.channels is not None:
        raise UsageError(
            "--hidden is of dense layers and --channels of convolutions, and no network has both: "
            "leave one of them out"
        )
    dense = model.network not in (None, *CONVOLUTIONS)
    if model.channels is not None and dense:
        raise UsageError(
            f"--channels is of convolutions but --network={model.network} has none: leave it out, "
            f"or choose {' or '.join(CONVOLUTIONS)}"
        )
    if model.hidden is not None and model.network in CONVOLUTIONS:
        raise UsageError(
            f"--hidden is of dense layers but --network={model.network} has its own: leave it out, "
            "or choose mlp, gated, residual or ladder"
        )
    for name, widths in ("hidden", model.hidden), ("channels", model.channels):
        if widths is not None and (not widths or min(widths) < 1):
            raise UsageError(f"--{name} is {widths}: give one positive width or more")
    top_down = model.network == "top_down"
    if top_down and model.channels is not None and len(model.channels) > 1:
        raise UsageError(
            f"--channels is {model.channels} but --network=top_down has as many at all sizes: give "
            "one number"
        )
    if model.blocks is not None and not top_down:
        raise UsageError("--blocks is of --network=top_down: leave it out")
    if model.blocks is not None and (min(model.blocks, default=0) < 0 or not sum(model.blocks)):
        raise UsageError(f"--blocks is {model.blocks}: give one for each size, not all of them 0")


def _check_latents(options: Options) -> None:
    model = options.model
    posterior, prior = f"--posterior={model.posterior}", f"--prior={model.prior}"
    if model.network in HIERARCHIES:
        _check_hierarchy(options)
    told = isinstance(options.data, OwnData) and options.data.condition is not None
    if told and model.conditional:
        raise UsageError(
            "--conditional is of the folders' names or the labels and --condition of columns: give "
            "one of them, and the class as a column"
        )
    if (told or model.conditional) and model.prior in LEARNED_PRIORS:
        what = "--condition" if told else "--conditional"
        raise UsageError(f"{prior} knows no classes: leave it or {what} out")
    if model.posterior == "power_spherical" and (told or model.conditional):
        what = "--condition" if told else "--conditional"
        raise UsageError(f"{posterior} has no conditional prior: leave it or {what} out")
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


def _check_hierarchy(options: Options) -> None:
    """What only a posterior of one layer of latents has."""
    model, chosen = options.model, options.objective
    unfit = {
        "--conditional": model.conditional,
        "--condition": isinstance(options.data, OwnData) and options.data.condition is not None,
        f"--posterior={model.posterior}": model.posterior != "normal",
        f"--prior={model.prior}": model.prior in LEARNED_PRIORS,
        f"--precision={model.precision}": model.precision != "float32",
        f"--gradient={chosen.gradient}": chosen.gradient
        not in (None, "reparameterized", "estimated_kl"),
        f"--penalty={chosen.penalty}": chosen.penalty != "none",
        "--remat": options.devices.remat,
    }
    for option, given in unfit.items():
        if given:
            raise UsageError(
                f"--network={model.network} has layers of latents, for which there is no {option}: "
                "leave it out, or choose another --network"
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
        for name in ("beta", "kl_warmup", "free_bits", "penalty")
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
    if chosen.gradient not in (None, *gradients):
        raise UsageError(
            f"--gradient={chosen.gradient} is not one of --objective={chosen.objective}: choose "
            f"from {', '.join(gradients)}"
        )
    if options.model.likelihood == "sigma_vae" and chosen.objective != "elbo":
        raise UsageError(
            f"--likelihood=sigma_vae takes one scale for all draws and --objective="
            f"{chosen.objective} weighs each: choose --likelihood=normal, or --objective=elbo"
        )
    _check_numbers(chosen)
    if chosen.penalty == "none" and chosen.penalty_weight is not None:
        raise UsageError("--penalty-weight is of a --penalty: give one, or leave it out")
    if chosen.beta == 0 and len(weighs) > 1 and weighs[1] != "--penalty":
        raise UsageError(f"--beta is 0, which leaves no KL: leave {weighs[1]} out")
    if chosen.free_bits and chosen.gradient not in (None, "reparameterized"):
        raise UsageError(
            f"--free-bits takes the exact KL and --gradient={chosen.gradient} does not: leave one "
            "of them out"
        )
    for name, used in ("free-bits", chosen.free_bits), ("penalty", chosen.penalty != "none"):
        if used and options.training.accumulate > 1:
            raise UsageError(
                f"--{name} is of the mean over a batch, which --accumulate cuts: leave one of them "
                "out"
            )
    if chosen.penalty != "none":
        _check_penalty(options)


def _check_numbers(chosen: Objective) -> None:
    """Of the objectives that have one of their own."""
    for objective, name in NUMBERS.items():
        value, option = getattr(chosen, name), f"--{name.replace('_', '-')}"
        if objective == chosen.objective and value is None:
            raise UsageError(f"--objective={objective} needs {option}: see --help")
        if objective != chosen.objective and value is not None:
            raise UsageError(f"{option} is of --objective={objective}: leave it out")
    if chosen.num_groups is not None and (
        chosen.num_groups < 1 or chosen.num_draws % chosen.num_groups
    ):
        raise UsageError(
            f"--num-groups is {chosen.num_groups} but --num-draws is {chosen.num_draws}: let it "
            "divide them"
        )
    for name, share in ("elbo-share", chosen.elbo_share), ("alpha", chosen.alpha):
        if share is not None and not 0 <= share <= 1:
            raise UsageError(f"--{name} is {share}: give a number from 0 to 1")


def _check_penalty(options: Options) -> None:
    chosen = options.objective
    penalty, weight = f"--penalty={chosen.penalty}", chosen.penalty_weight
    if weight is None:
        raise UsageError(f"{penalty} needs --penalty-weight: see --help")
    if not 0 < weight < math.inf:
        raise UsageError(f"--penalty-weight is {weight}: it must be above 0, and finite")
    if chosen.num_draws > 1:
        raise UsageError(f"{penalty} takes one draw of z for each image: leave --num-draws out")
    if options.training.batch_size is not None and options.training.batch_size < 2:
        raise UsageError(f"{penalty} is of a batch: give a --batch-size of 2 or more")
    if options.model.posterior != "normal":
        raise UsageError(
            f"{penalty} is of Gaussian posteriors and not of --posterior={options.model.posterior}:"
            " leave one of them out"
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
    if devices.coordinator is not None and (options.run.seeds > 1 or options.run.sweep):
        raise UsageError("--seeds and --sweep are of one process: leave --coordinator out")
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
    groups = "data", "model", "training", "objective"  # devices may be others
    check_unchanged(options, stored, groups, changeable)
    check_selected(options.run, stored.run)


def check_selected(run: Run, stored: Run) -> None:
    """Raises UsageError where a resumed run was asked for an epoch that was not kept."""
    if run.select != stored.select:
        raise UsageError(
            f"--select is {run.select} but the run in {run.output} has {stored.select}: leave it "
            "out, or start a new run"
        )


def check_unchanged(
    options: Any, stored: Any, groups: Sequence[str], changeable: Collection[str]
) -> None:
    """Raises UsageError for the first option of some groups that is another, but the changeable."""
    for group in groups:
        for item in dataclasses.fields(getattr(options, group)):
            now, then = (getattr(getattr(o, group), item.name) for o in (options, stored))
            if now != then and item.name not in changeable:
                raise UsageError(
                    f"--{item.name.replace('_', '-')} is {now} but the run in "
                    f"{options.run.output} has {then}: leave it out, or start a new run"
                )
