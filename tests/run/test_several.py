"""Several runs of one command: which they are, what ends them, and what is said of all."""

import json
import signal
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from vae_jax.evaluation import batched
from vae_jax.run import command, folder, several
from vae_jax.run.errors import DataError, Interrupted, RunError, UsageError
from vae_jax.run.options import Evaluation, Run


@dataclass(frozen=True)
class Data:
    dataset: str = "rows.csv"


@dataclass(frozen=True)
class Model:
    hidden: tuple[int, ...] = (4,)
    flat: bool = False


@dataclass(frozen=True)
class Training:
    epochs: int = 3
    seed: int = 0


@dataclass(frozen=True)
class Options:
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)
    run: Run = field(default_factory=Run)


class Job(NamedTuple):
    chosen: Options
    start: float = 0.0
    name: str = ""
    stop: Any = None
    replica: Any = None

    continued_by = "it --resume"
    resident = True


def log_likelihood(chosen: Options) -> float:
    return -10.0 * sum(chosen.model.hidden) - (chosen.training.seed + 1) ** 2


class Fake:
    """A road whose numbers are those of `log_likelihood`; counts what it is asked for."""

    def __init__(self, fails: str = "", interrupts: str = "") -> None:
        self.fails, self.interrupts = fails, interrupts
        self.trained: list[str] = []
        self.loads = 0

    def read(self, arguments: Any) -> several.Read:
        chosen = command.parse(Options, arguments, prog="it")
        return chosen, lambda: several.Road(
            self.prepare, self.begin, lambda job: ["one line"], self.train, self.conclude
        )

    def prepare(self, chosen: Options, loaded: dict[Any, Any]) -> Options:
        if chosen.data not in loaded:
            self.loads += 1
            loaded[chosen.data] = self.loads
        return chosen

    def begin(self, chosen: Options, prog: str) -> Job:
        where, again = chosen.run.output, chosen.run.resume
        assert where is not None
        if not again:
            folder.create(where, "", overwrite=False)
        options = {"data": {}, "model": {"hidden": list(chosen.model.hidden)}}
        config = {**folder.stamp(), "kind": "table", "dataset": "rows", "digest": "d"}
        # What a table's config.json has, which the comparison reads.
        options |= {"training": {"seed": chosen.training.seed, "patience": 0, "init_from": None}}
        stored = {"options": {**options, "evaluation": {}, "run": {"select": "last"}}}
        folder.write_json(where / "config.json", {**config, **stored, "columns": []})
        return Job(chosen)

    def train(self, job: Job) -> str:
        self.trained.append(job.name)
        if job.name == self.fails:
            raise RunError("the loss is nan")
        if job.name == self.interrupts:
            job.stop.signum = signal.SIGTERM
            raise Interrupted(signal.SIGTERM, "of one run")
        return f"fitted {job.name}"

    def conclude(self, job: Job, fitted: str) -> None:
        assert fitted == f"fitted {job.name}" or not job.name
        elbo = log_likelihood(job.chosen) - 1
        results = {"test_log_likelihood": elbo + 1, "selected_validation_elbo": elbo}
        results |= {"test_elbo": elbo, "train_seconds": 1.0, "compile_seconds": 0.0}
        for name in "log_likelihood", "elbo":
            results[f"test_{name}_standard_error_over_examples"] = 0.1
        where = job.chosen.run.output
        assert where is not None
        folder.write_json(where / "results.json", results)


@pytest.fixture
def tables(monkeypatch):
    """A kind whose options are read as the fake's are."""
    monkeypatch.setattr(folder, "read_config_of", lambda kind, path: folder.read_stamped(path))


def let_go(output: Path) -> None:
    """Of the folders, as the end of the process would."""
    for name in ("", *folder.runs_in(output)):
        folder.unlock(output / name)


def results(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "results.json").read_text())
    return found


def test_every_combination_and_seed_is_a_run_of_its_own(tmp_path, tables, capsys):
    fake, output = Fake(), tmp_path / "all"
    given = ["--seeds=3", "--seed=5", "--sweep", "hidden=4,2 3", "flat=false,true"]
    several.main(fake.read, [*given, f"--output={output}"], "it")
    names = [
        f"hidden={hidden},flat={flat},seed={seed}"
        for hidden in ("4", "2-3")
        for flat in ("false", "true")
        for seed in (5, 6, 7)
    ]
    assert folder.runs_in(output) == names
    assert sorted(fake.trained) == sorted(names)
    assert fake.loads == 1
    written = results(output)
    assert [run["run"] for run in written["runs"]] == names
    assert [mean["settings"] for mean in written["means"]] == [
        {"hidden": hidden, "flat": flat} for hidden in ("4", "2 3") for flat in ("false", "true")
    ]
    for mean, width in zip(written["means"], (4, 4, 5, 5), strict=True):
        values = [-10.0 * width - (seed + 1) ** 2 for seed in (5, 6, 7)]
        assert mean["num_runs"] == 3
        assert mean["log_likelihood"] == pytest.approx(np.mean(values))
        assert mean["log_likelihood_deviation"] == pytest.approx(np.std(values, ddof=1))
    assert written["best_on_validation"] == "hidden=4,flat=false,seed=5"
    said = capsys.readouterr().out
    assert said.count("one line") == 1
    deviation = statistics.stdev([36, 49, 64])
    assert f"3 seeds: test log p(x) {-40 - 149 / 3:.2f} +- {deviation:.2f}" in said
    assert (output / "runs.csv").read_text().count("\n") == 13
    assert (output / "runs.png").stat().st_size > 1000


def test_one_command_begins_and_goes_on(tmp_path, tables, monkeypatch):
    output = tmp_path / "all"
    given = ["--seeds", "2", "--sweep", "hidden=4,5", f"--output={output}", "--restartable"]
    fake, more = Fake(), ["--epochs=3"]
    several.main(fake.read, [*given, *more], "it")
    assert len(fake.trained) == 4
    let_go(output)
    went_on = []
    monkeypatch.setattr(fake, "begin", lambda of, prog: went_on.append(of.run) or Job(of))
    several.main(fake.read, [*given, *more], "it")
    assert [(of.resume, of.output.name) for of in went_on] == [
        (True, name) for name in folder.runs_in(output)
    ]
    for other in "--resume", "--overwrite":
        with pytest.raises(UsageError, match=f"leave {other} out"):
            several.main(fake.read, [*given, other], "it")
    with pytest.raises(UsageError, match="--restartable needs --output"):
        several.main(fake.read, ["--restartable"], "it")


def test_a_sweep_of_values_alone_has_one_run_each_and_no_deviation(tmp_path, tables):
    several.main(Fake().read, ["--sweep", "seed=1,4", f"--output={tmp_path / 'all'}"], "it")
    written = results(tmp_path / "all")
    assert [run["run"] for run in written["runs"]] == ["seed=1", "seed=4"]
    assert [mean["log_likelihood"] for mean in written["means"]] == [-44, -65]
    assert all(mean["log_likelihood_deviation"] is None for mean in written["means"])


def test_a_run_that_fails_ends_no_other_and_is_named(tmp_path, tables):
    with pytest.raises(RunError, match=r"^seed=1: the loss is nan$"):
        several.main(Fake(fails="seed=1").read, ["--seeds=3", f"--output={tmp_path / 'all'}"], "it")
    written = results(tmp_path / "all")
    assert [run["run"] for run in written["runs"]] == ["seed=0", "seed=2"]
    assert written["failed"] == {"seed=1": "the loss is nan"}
    assert written["means"][0]["num_runs"] == 2


@pytest.mark.parametrize("error", [UsageError, DataError])
def test_one_that_cannot_begin_loses_no_other(tmp_path, tables, error):
    class Refuses(Fake):
        def train(self, job):
            if job.name == "hidden=5":
                raise error("of another model")
            return super().train(job)

    output = tmp_path / "all"
    with pytest.raises(RunError, match=r"^hidden=5: of another model$"):
        several.main(Refuses().read, ["--sweep", "hidden=4,5", f"--output={output}"], "it")
    assert [run["run"] for run in results(output)["runs"]] == ["hidden=4"]
    assert (output / "hidden=4" / "results.json").exists()


def test_data_that_cannot_be_begun_with_leave_no_runs(tmp_path, tables):
    class Refuses(Fake):
        def begin(self, chosen, prog):
            super().begin(chosen, prog)
            raise DataError("values are outside of [0, 1]")

    output = tmp_path / "all"
    with pytest.raises(DataError, match="values are outside"):
        several.main(Refuses().read, ["--seeds=2", f"--output={output}"], "it")
    assert not [path for path in output.iterdir() if not path.name.startswith(".")]


def test_all_stop_together_and_go_on_together(tmp_path, tables, monkeypatch):
    monkeypatch.setattr(batched, "num_cores", lambda: 1)
    output = tmp_path / "all"
    stopped = Fake(interrupts="seed=1")
    with pytest.raises(Interrupted, match=f"it --output={output} --resume") as raised:
        several.main(stopped.read, ["--seeds=3", f"--output={output}"], "it")
    assert raised.value.signum == signal.SIGTERM
    assert stopped.trained == ["seed=0", "seed=1"]  # the third did not begin
    let_go(output)
    fake = Fake()
    several.main(fake.read, [f"--output={output}", "--resume"], "it")
    assert fake.trained == ["seed=0", "seed=1", "seed=2"]
    assert len(results(output)["runs"]) == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--sweep", "hidden"], "give an option and its values, as latent-dim=8,16"),
        (["--sweep", "hidden=3,3"], "'hidden=3,3': 3 is there twice"),
        (["--sweep", "hidden=3,4", "--hidden", "5"], "and --hidden=5 too: give one of them"),
        (["--sweep", "hidden=3,"], "give an option and its values"),
        (["--sweep", "hiden=3"], "hiden is none of epochs, flat, hidden, num-class-samples"),
        (["--sweep", "output=a,b"], "output is none of"),
        (["--sweep", "dataset=a,b"], "dataset is none of"),
        (["--sweep", "hidden=3", "hidden=4"], "has an option twice"),
        (["--sweep", "seed=3,4", "--seeds=2"], "--sweep has seeds, and --seeds too"),
        (["--sweep", "epochs=3,x"], "could not convert|invalid|x"),
        (["--seeds=2", "--resume"], "is of one run: leave --seeds and --sweep out"),
    ],
)
def test_what_cannot_be_several_is_refused_before_anything_is_read(tmp_path, given, said):
    fake = Fake()
    with pytest.raises(UsageError, match=said):
        several.main(fake.read, [*given, f"--output={tmp_path / 'all'}"], "it")
    assert fake.loads == 0
    assert not list(tmp_path.iterdir())


def test_a_folder_of_several_is_overwritten_whole_and_taken_for_no_run(tmp_path, tables):
    output = tmp_path / "all"
    several.main(Fake().read, ["--seeds=2", f"--output={output}"], "it")
    with pytest.raises(UsageError, match="holds several runs: name one of them, such as seed=0"):
        folder.read_config(output)
    let_go(output)
    with pytest.raises(UsageError, match="--overwrite"):
        several.main(Fake().read, ["--seeds=2", f"--output={output}"], "it")
    let_go(output)
    fails = Fake()
    fails.train = lambda job: (_ for _ in ()).throw(UsageError("of another model"))
    with pytest.raises(UsageError, match="of another model"):
        several.main(fails.read, ["--sweep=seed=7", f"--output={output}", "--overwrite"], "it")
    assert folder.runs_in(output) == ["seed=0", "seed=1"]
    assert (output / "seed=0" / "results.json").exists()
    assert not (output / "seed=7").exists()
    let_go(output)
    folder.unlock(output / "seed=7")
    several.main(Fake().read, ["--sweep=seed=7", f"--output={output}", "--overwrite"], "it")
    assert folder.runs_in(output) == ["seed=7"]
    assert not (output / "seed=0").exists()


def test_a_strangers_folder_of_several_leads_nowhere_else(tmp_path):
    others = tmp_path / "others"
    others.mkdir()
    output = tmp_path / "all"
    output.mkdir()
    names = ["../others", str(others), "..", "", ".", "a/b", "seed=0"]
    config = {**folder.stamp(), "kind": "several", "runs": {name: {} for name in names}}
    folder.write_json(output / "config.json", config)
    assert folder.runs_in(output) == ["seed=0"]
    folder.create(output, "", overwrite=True)
    assert others.exists()
