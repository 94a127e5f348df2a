"""Disks that fail and processes that are killed: nothing is lost, and every run goes on.

The tests start this file as a program, which forks a process for each session with a run. System
calls below the run's folder fail there, at random, by faults.c.
"""

import ctypes
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPEN, READ, WRITE = 1, 2, 4
ERRORS = {  # where each can come
    "EIO": READ | WRITE,
    "ESTALE": READ | WRITE,
    "ENOSPC": WRITE,
    "EMFILE": OPEN,
    "SIGKILL": READ | WRITE,
}


# The program


def serve():
    """Answers each line of stdin, a session, with its exit status and its number of calls."""
    import experiments.mnist  # noqa: F401 - all that a session needs, before it is forked
    from vae_jax import checkpoint, run  # noqa: F401
    from vae_jax.run import figures, images, pictures  # noqa: F401

    for line in sys.stdin:
        session = json.loads(line)
        if (child := os.fork()) == 0:
            signal.alarm(500)  # one that hangs ends, and fails the test
            become(session)
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become(session):
    """Runs a session in this process."""
    from vae_jax import checkpoint
    from vae_jax.run import command, main

    checkpoint._WAITS = (0.0, 0.01, 0.01)
    log = os.open(session["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faults = ctypes.CDLL(None)
    faults.faults_calls.restype = ctypes.c_long
    folder, fault = session["folder"], session["fault"]
    faults.faults_begin(
        folder.encode(),
        fault["kinds"],
        ctypes.c_long(fault["first"]),
        ctypes.c_long(fault["number"]),
        fault["error"],
    )
    try:
        if session["options"] is None:
            command.run(lambda: fit(Path(folder), session["plan"]))
        else:
            sys.argv = ["mnist", f"--output={folder}", *session["options"]]
            main.run("mnist", "python -m experiments.mnist")
    finally:
        Path(session["log"] + ".calls").write_text(str(faults.faults_calls()))


def fit(folder, plan):
    """A short training; its parameters and its rows are put beside the folder."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from vae_jax import run

    def loss(params, key, batch):
        error = jnp.square(batch - params["mean"]).sum(axis=-1)
        return error.mean() + 0.1 * jax.random.normal(key) * params["mean"].sum(), error

    fitted = run.fit(
        jax.random.key(0),
        loss,
        {"mean": jnp.zeros(3)},
        optax.adam(0.1),
        np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32),
        run.Plan(**{"batch_size": 10, "epochs": 3, "checkpoint_seconds": 0, **plan}, folder=folder),
        validate=lambda params: {"score": -jnp.abs(params["mean"] - 0.1).sum()},
    )
    bits = [np.asarray(leaf).tobytes().hex() for leaf in jax.tree.leaves(fitted.params)]
    rows = [{k: v for k, v in row.items() if "second" not in k} for row in fitted.rows]
    folder.with_suffix(".json").write_text(json.dumps([bits, rows]))


# The tests

NEVER = {"kinds": READ | WRITE, "first": 2**40, "number": 1, "error": 0}
VARIANTS = [
    {},
    {"keep": 1, "keep_best": "validation_score"},
    {"keep": 100, "average_decay": 0.9, "stream": True},
]
OPTIONS = [
    *("--dataset=digits", "--epochs=2", "--checkpoint-seconds=0", "--hidden=16", "--latent-dim=2"),
    *("--num-importance-samples=2", "--average-decay=0", "--tensorboard"),
]


class Sessions:
    """Runs on a disk that fails.

    Args:
      process: of `serve`.
      folder: where runs are.
    """

    def __init__(self, process, folder):
        self._process, self.folder = process, folder
        self._whole = {}
        self.faults = 0  # of the sessions, how many had one

    def session(self, name, kind, fault=NEVER):
        """Begins a run or goes on with it; the exit status and what was said."""
        folder, log = self.folder / name, self.folder / f"{name}.log"
        options = None
        if kind == "command":
            options = ["--resume"] if (folder / "config.json").exists() else OPTIONS
        plan = {} if options else {**VARIANTS[kind], "resume": True}
        task = {"folder": str(folder), "log": str(log), "options": options, "plan": plan}
        self._process.stdin.write(json.dumps({**task, "fault": fault}) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        calls = Path(f"{log}.calls")
        self.calls = int(calls.read_text()) if calls.exists() else fault["first"] + 1
        calls.unlink(missing_ok=True)
        self.faults += self.calls > fault["first"]
        return status, log.read_text()

    def end(self, name, kind):
        """What a run that is at its end has come to."""
        if kind != "command":
            return json.loads((self.folder / f"{name}.json").read_text())
        results = json.loads((self.folder / name / "results.json").read_text())
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        rows = [{k: v for k, v in json.loads(x).items() if "second" not in k} for x in lines]
        return [results["parameters_sha256"], results["test_log_likelihood"], rows]

    def whole(self, kind):
        """What the run that nothing befell comes to, and its number of calls."""
        if kind not in self._whole:
            status, said = self.session(f"whole-{kind}", kind)
            assert status == 0, said
            self._whole[kind] = self.end(f"whole-{kind}", kind), self.calls
        return self._whole[kind]

    def torture(self, seed, kind):
        """A run with faults in up to three sessions, then none; what happened, for a message."""
        chance, name = random.Random(seed), f"{kind}-{seed}"
        whole, calls = self.whole(kind)
        keep = 3 if kind == "command" else VARIANTS[kind].get("keep", 3)
        folder, story = self.folder / name, []
        for _ in range(chance.randint(1, 3)):
            error = chance.choice(list(ERRORS))
            fault = {
                "kinds": ERRORS[error],
                "first": int(calls * chance.random() ** 2),
                "number": chance.choice([1, 3, 2**40]),
                "error": 0 if error == "SIGKILL" else getattr(errno, error),
            }
            before = checkpoints(folder)
            status, said = self.session(name, kind, fault)
            story.append(f"seed {seed}: {error} {fault}\n{said}")
            check_said(status, said, error, "\n".join(story))
            check_kept(before, checkpoints(folder), keep, "\n".join(story))
            assert not (folder / "damaged").exists(), story
        status, said = self.session(name, kind)
        assert status == 0, (*story, said)
        assert "damaged" not in said, (*story, said)
        assert self.end(name, kind) == whole, story
        left = [path.name for path in (folder / "checkpoints").iterdir()]
        assert all(name.isdigit() for name in left), (left, story)
        shutil.rmtree(folder)


def checkpoints(folder):
    """Of each checkpoint that is complete a hash of its files."""
    found = {}
    for path in (folder / "checkpoints").glob("[0-9]*"):
        if path.name.isdigit():
            digest = hashlib.sha256()
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                digest.update(file.name.encode() + file.read_bytes())
            found[int(path.name)] = digest.hexdigest()
    return found


def check_kept(before, after, keep, story):
    """Of the checkpoints from before none has gone or changed, but for `keep` newer ones."""
    for step, digest in before.items():
        newer = sum(other > step for other in after)
        assert after.get(step) == digest or newer >= keep, (step, story)


def check_said(status, said, error, story):
    """A session ended well, or in one line of this project, or was killed."""
    assert "Traceback" not in said, story
    assert "damaged" not in said, story
    if error == "SIGKILL" and status == -signal.SIGKILL:
        return
    assert status in (0, 1), story
    if status:
        last = said.rstrip("\n").rpartition("\n")[2]
        assert last.startswith("error: "), story


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    if sys.platform != "linux" or (compiler := shutil.which("cc")) is None:
        pytest.skip("faults.c needs Linux and a C compiler, cc")
    folder = tmp_path_factory.mktemp("faults")
    library, source = folder / "faults.so", Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    process = subprocess.Popen(
        [sys.executable, __file__],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LD_PRELOAD": str(library)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # that a process with threads is forked
        text=True,
    )
    with process:
        yield Sessions(process, folder)
        process.stdin.close()


@pytest.mark.parametrize(
    ("kind", "seeds"),
    [
        (0, range(2)),
        (1, range(2)),
        *(
            pytest.param(kind, range(start, start + 10), marks=pytest.mark.long)
            for kind, num in ((0, 60), (1, 60), (2, 60), ("command", 20))
            for start in range(100, 100 + num, 10)
        ),
    ],
)
def test_faults_at_random_lose_nothing_and_every_run_goes_on(sessions, kind, seeds):
    before = sessions.faults
    for seed in seeds:
        sessions.torture(seed, kind)
    faults = sessions.faults - before
    print(f"{len(seeds)} runs, {faults} sessions with a fault")
    assert faults >= len(seeds) / 2


@pytest.mark.long
@pytest.mark.parametrize("number", [1, 2])
def test_each_call_that_reads_may_fail_and_nothing_is_taken_for_damaged(sessions, number):
    """Of a run that is at its end, which a resume does but read."""
    whole, _ = sessions.whole(1)
    fault, before = {**NEVER, "kinds": READ}, checkpoints(sessions.folder / "whole-1")
    sessions.session("whole-1", 1, fault)
    calls = sessions.calls
    assert calls > 20
    for first in range(calls):
        of_call = {**fault, "first": first, "number": number, "error": errno.EIO}
        status, said = sessions.session("whole-1", 1, of_call)
        check_said(status, said, "EIO", (first, said))
        assert not (sessions.folder / "whole-1" / "damaged").exists(), (first, said)
        assert checkpoints(sessions.folder / "whole-1") == before, (first, said)
        assert status or sessions.end("whole-1", 1) == whole, (first, said)


if __name__ == "__main__":
    serve()
