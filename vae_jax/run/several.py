"""What a command line asks for: a run, or several of one command, each a folder in one.

Several are seeds, values of options, or both. Each is a whole run, which the other commands take.
"""

import dataclasses
import itertools
import shutil
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vae_jax.run import command, folder, kinds, overwritten, survival
from vae_jax.run.errors import DataError, Interrupted, RunError, UsageError
from vae_jax.run.survival import StopRequest

if TYPE_CHECKING:
    from vae_jax.run.comparison import Comparison


class Road(NamedTuple):
    """A run from options to numbers, in parts.

    Attributes:
      prepare: options, data by what was asked for -> what is known before a folder is opened.
      begin: that, the command -> a job, whose folder is open.
      announced: job -> lines for the user.
      train: job -> `training.Fitted`.
      conclude: job, that -> numbers and pictures in the folder.
    """

    prepare: Callable[[Any, dict[Any, Any]], Any]
    begin: Callable[[Any, str], Any]
    announced: Callable[[Any], list[str]]
    train: Callable[[Any], Any]
    conclude: Callable[[Any, Any], None]


Read = tuple[Any, Callable[[], Road]]
"""Options that have been checked, and what brings their road, and JAX with it."""


class _Asked(NamedTuple):
    """One of several runs: its name, what sets it apart but for the seed, and its options."""

    name: str
    settings: dict[str, str]
    chosen: Any


def main(read: Callable[[Sequence[str]], Read], arguments: Sequence[str], prog: str) -> None:
    """Trains, measures and draws what a command line asks for.

    Args:
      read: arguments -> what they ask for as one run.
      arguments: of the command line.
      prog: the command.

    Raises:
      UsageError, DataError, RunError, Interrupted: in one line.
    """
    output = command.option_value(arguments, "--output")
    if "--restartable" in arguments:
        arguments = _restarted(arguments, output)
    if output is not None and "--resume" in arguments and folder.runs_in(Path(output)):
        asked, road = _resumed(read, arguments, Path(output))
        _several(road(), asked, Path(output), prog)
        return
    chosen, road = read(arguments)
    if chosen.run.seeds == 1 and not chosen.run.sweep:
        _alone(road(), chosen, prog)
        return
    if chosen.run.resume:
        raise UsageError(f"--output={output} is of one run: leave --seeds and --sweep out")
    place = chosen.run.output or Path("runs") / f"several-{time.strftime('%Y%m%d-%H%M%S')}"
    asked = _planned(read, arguments, chosen, place)
    _several(road(), asked, place, prog, new=True, overwrite=chosen.run.overwrite)


def _restarted(arguments: Sequence[str], output: str | None) -> list[str]:
    """The command line of a restartable run: to begin it, or to go on with it."""
    if output is None:
        raise UsageError("--restartable needs --output=DIR, where the run is looked for")
    for other in "--resume", "--overwrite":
        if other in arguments:
            raise UsageError(f"--restartable says itself when to go on: leave {other} out")
    begun = (Path(output) / "config.json").exists()
    given = [a for a in arguments if a != "--restartable"]
    several = "--seeds", "--sweep"  # a folder of several knows them
    if not begun:
        return given
    if folder.runs_in(Path(output)):
        given = _without(given, several)
    return [*given, "--resume"]


def _without(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """A command line without some options and their values, numbers or NAME=VALUE."""
    kept, inside = [], False
    for argument in arguments:
        if argument.startswith("-"):
            inside = argument.partition("=")[0] in names
        elif inside:
            inside = argument.isdigit() or "=" in argument
        if not inside:
            kept.append(argument)
    return kept


def _alone(road: Road, chosen: Any, prog: str) -> None:
    job = road.begin(road.prepare(chosen, {}), prog)
    for line in road.announced(job):
        print(line)
    fitted = road.train(job)
    _measured(road, job, fitted, job.continued_by)


def _measured(road: Road, job: Any, fitted: Any, continued_by: str) -> None:
    try:
        with survival.terminable():
            road.conclude(job, fitted)
    except KeyboardInterrupt as stop:
        raise Interrupted(
            signal.SIGTERM if isinstance(stop, survival.Terminated) else signal.SIGINT,
            "stopped while measuring; the training is done and saved, and what is missing is made "
            f"by\n  {continued_by}",
        ) from None


def _planned(
    read: Callable[[Sequence[str]], Read], arguments: Sequence[str], chosen: Any, output: Path
) -> list[_Asked]:
    """A run for each combination of the values, and each seed.

    Raises:
      UsageError: one of them cannot be used.
    """
    swept = dict(_values(of, chosen) for of in chosen.run.sweep)
    for name in swept:
        if (value := command.option_value(arguments, f"--{name}")) is not None:
            raise UsageError(f"--sweep has {name}, and --{name}={value} too: give one of them")
    if len(swept) < len(chosen.run.sweep):
        raise UsageError("--sweep has an option twice: give all its values at once")
    first = chosen.training.seed
    asked = []
    for values in itertools.product(*swept.values()):
        settings = dict(zip(swept, values, strict=True))
        given = [part for name, value in settings.items() for part in _given(name, value)]
        of_settings = read([*arguments, *given])[0]
        for seed in range(first, first + chosen.run.seeds):
            of_seed = {"seed": str(seed)} if chosen.run.seeds > 1 else {}
            name = ",".join(f"{n}={v}" for n, v in (settings | of_seed).items())
            name = name.replace("/", "_").replace(" ", "-")  # of a path, of several numbers
            training = dataclasses.replace(of_settings.training, seed=seed)
            run = dataclasses.replace(
                of_settings.run, seeds=1, sweep=(), output=output / name, overwrite=False
            )
            of_run = dataclasses.replace(
                of_settings, run=run, training=training if of_seed else of_settings.training
            )
            asked.append(_Asked(name, settings, of_run))
    return asked


def _values(of: str, chosen: Any) -> tuple[str, list[str]]:
    """The option of NAME=VALUE,VALUE and its values."""
    name, _, listed = of.partition("=")
    name = name.lstrip("-").replace("_", "-")
    values = [value.strip() for value in listed.split(",")]
    if not name or not all(values):
        raise UsageError(f"--sweep has {of!r}: give an option and its values, as latent-dim=8,16")
    if twice := [value for value in values if values.count(value) > 1]:
        raise UsageError(f"--sweep has {of!r}: {twice[0]} is there twice")
    groups = {group.name: getattr(chosen, group.name) for group in dataclasses.fields(chosen)}
    swept = [
        f.name.replace("_", "-")
        for group, options in groups.items()
        if group not in ("run", "devices")
        for f in dataclasses.fields(options)
    ]
    swept.remove("dataset")
    if name not in swept:
        raise UsageError(f"--sweep has {of!r}: {name} is none of {', '.join(sorted(swept))}")
    if name == "seed" and chosen.run.seeds > 1:
        raise UsageError("--sweep has seeds, and --seeds too: give one of them")
    return name, values


def _given(name: str, value: str) -> list[str]:
    """An option as a command line has it; one of several numbers has them apart by spaces."""
    if value in ("true", "false"):
        return [f"--{name}"] if value == "true" else []
    return [f"--{name}", *value.split()]


def _resumed(
    read: Callable[[Sequence[str]], Read], arguments: Sequence[str], output: Path
) -> tuple[list[_Asked], Callable[[], Road]]:
    """The runs of a folder, each with its own options and those given now."""
    stored = folder.read_stamped(output)["runs"]
    asked = []
    for name in folder.runs_in(output):
        chosen, road = read([*arguments, "--output", str(output / name)])
        if chosen.run.seeds > 1 or chosen.run.sweep:
            raise UsageError(
                f"{output} holds {len(stored)} runs, which go on: leave --seeds and --sweep out, "
                "or start anew in another folder"
            )
        asked.append(_Asked(name, stored[name], chosen))
    return asked, road


_FAILURES = UsageError, DataError, RunError


def _several(
    road: Road,
    asked: Sequence[_Asked],
    output: Path,
    prog: str,
    *,
    new: bool = False,
    overwrite: bool = False,
) -> None:
    """Trains several runs, then measures each, then all."""
    loaded: dict[Any, Any] = {}
    folder.check_writable(output)
    prepared = [road.prepare(of.chosen, loaded) for of in asked]
    if not new:
        folder.lock(output)
    else:
        folder.create(output, "", overwrite=overwrite)
        runs = {of.name: of.settings for of in asked}
        folder.write_json(
            output / "config.json", {**folder.stamp(), "kind": kinds.SEVERAL, "runs": runs}
        )
    continued_by = f"{prog} --output={output} --resume"
    try:
        jobs = [road.begin(of, prog) for of in prepared]
        for line in dict.fromkeys(line for job in jobs for line in road.announced(job)):
            print(line)
        found = _trained(road, asked, jobs, continued_by)
        if all(isinstance(of, UsageError) for of in found.values()):  # none has begun
            raise found[asked[0].name]
    except _FAILURES:  # what cannot begin leaves what was there
        if new:
            for of in asked:
                shutil.rmtree(output / of.name, ignore_errors=True)
            if not overwritten.put_back(output):
                (output / "config.json").unlink()
        raise
    overwritten.gone(output)
    done = {}
    for of, job in zip(asked, jobs, strict=True):
        if isinstance(found[of.name], BaseException):
            continue
        print(f"{of.name}:")
        fitted, seconds = found[of.name]
        # The time in which others were trained is not its own.
        job = job._replace(start=time.perf_counter() - seconds)
        _measured(road, job, fitted, continued_by)
        done[of.name] = of.settings
    failed = {name: str(error) for name, error in found.items() if name not in done}
    if done:
        _conclude(output, done, failed)
    for name, message in failed.items():
        raise RunError(f"{name}: {message}")


def _trained(
    road: Road, asked: Sequence[_Asked], jobs: Sequence[Any], continued_by: str
) -> dict[str, Any]:
    """What training left of each run, by name, and its seconds; or of `_FAILURES` what ended it.

    Raises:
      Interrupted: SIGINT or SIGTERM came; all are saved.
    """
    with StopRequest() as stop:

        def train(name: str, job: Any, replica: Any = None) -> Any:
            start = time.perf_counter()
            job = job._replace(name=name, stop=stop, start=start, replica=replica)
            try:
                if stop.signum:
                    raise Interrupted(stop.signum, "")
                fitted = road.train(job)
            finally:
                if replica is not None:
                    replica.together.leave(replica.who)
            return fitted, time.perf_counter() - start

        futures: dict[str, Any] = {}
        for at_once, group in _groups(asked, jobs):
            replicas: list[Any] = [None] * len(group)
            if at_once is None:
                from vae_jax.run.together import Together

                together = Together(len(group))
                replicas = [together.replica(who) for who in range(len(group))]
            with ThreadPoolExecutor(at_once or len(group)) as pool:
                for (name, job), replica in zip(group, replicas, strict=True):
                    futures[name] = pool.submit(train, name, job, replica)
                wait(futures.values())
    found: dict[str, Any] = {}
    for of in asked:
        future = futures[of.name]
        error = future.exception()
        if isinstance(error, Interrupted):
            done = sum(of.exception() is None for of in futures.values())
            said = f"stopped and saved, {done} of {len(asked)} runs trained; go on with"
            raise Interrupted(error.signum, f"{said}\n  {continued_by}")
        if error is not None and not isinstance(error, _FAILURES):
            raise error
        found[of.name] = future.result() if error is None else error
    return found


def _groups(
    asked: Sequence[_Asked], jobs: Sequence[Any]
) -> Iterator[tuple[int | None, list[tuple[str, Any]]]]:
    """The runs that are trained at once, one group after another: how many threads, names, jobs.

    On cores any of them: as one program under vmap eight took 1.2 times as long as in turn, for
    batched products are slower and no cache holds the moments of all. On an accelerator, which has
    one program after another, those of a program that differ in their seeds, as one program: None
    in place of threads. Many devices must all have the same programs in the same order: one run at
    a time, as where the data are streamed.
    """
    import jax

    from vae_jax.evaluation import batched

    named = [(of.name, job) for of, job in zip(asked, jobs, strict=True)]
    if len(jax.devices()) > 1 or not all(job.resident for job in jobs):
        yield 1, named
    elif jax.devices()[0].platform == "cpu":
        yield batched.num_cores(), named
    else:
        for settings in dict.fromkeys(tuple(of.settings.items()) for of in asked):
            same = [tuple(of.settings.items()) == settings for of in asked]
            group = list(itertools.compress(named, same))
            yield None if len(group) > 1 else 1, group


def _conclude(
    output: Path, runs: Mapping[str, Mapping[str, str]], failed: Mapping[str, str]
) -> None:
    """Writes what came of all runs, and the mean over the seeds of each setting."""
    from vae_jax.run import comparison  # here, as --help needs none of it

    found = comparison.compare([output / name for name in runs])
    settings = list(runs.values())
    means = []
    for one in [dict(of) for of in dict.fromkeys(tuple(of.items()) for of in settings)]:
        rows = [i for i, of in enumerate(settings) if of == one]
        mean: dict[str, Any] = {"settings": one, "num_runs": len(rows)}
        for name, column in found.numbers.items():
            values = [column[i] for i in rows if column[i] is not None]
            if not name.endswith("_error") and values:
                mean[name] = statistics.fmean(values)
                mean[f"{name}_deviation"] = statistics.stdev(values) if len(values) > 1 else None
        means.append(mean)
    results = {
        "protocol": "means over runs that differ in their seeds alone, and the standard deviation "
        "between these, with n - 1; numbers of each run are of the same test set",
        "means": means,
        "runs": [
            {"run": name, "settings": dict(of)} | {n: c[i] for n, c in found.numbers.items()}
            for i, (name, of) in enumerate(runs.items())
        ],
        "best_on_validation": _best(found),
        "failed": dict(failed),
        "notes": found.notes,
    }
    folder.write_json(output / "results.json", results)
    for mean in means:
        print(_line(mean))
    if results["best_on_validation"] is not None:
        print(f"best on the validation set: {results['best_on_validation']}")
    for note in found.notes:
        print(f"note: {note}")
    picture = comparison.write(found, output / "runs.csv")
    print(f"all runs: {output / 'runs.csv'}, {picture}; means: {output / 'results.json'}")


def _best(found: "Comparison") -> str | None:
    """The run whose validation ELBO is highest, where these compare."""
    elbos = found.numbers.get("validation_elbo", [None])
    if None in elbos or any("do not compare" in note for note in found.notes):
        return None
    return Path(found.runs[elbos.index(max(elbos))]).name


def _line(mean: Mapping[str, Any]) -> str:
    """Of a setting, for the terminal."""
    said = []
    for name, label in ("log_likelihood", "log p(x)"), ("elbo", "ELBO"), ("kl", "KL"):
        if name not in mean:
            continue
        deviation = mean[f"{name}_deviation"]
        beside = "" if deviation is None else f" +- {deviation:.2f}"
        said.append(f"test {label} {mean[name]:.2f}{beside}")
    of = ", ".join(f"{name} {value}" for name, value in mean["settings"].items())
    runs = f"{mean['num_runs']} seed{'s' * (mean['num_runs'] > 1)}"
    return f"{of + ', ' if of else ''}{runs}: {', '.join(said)} nats"
