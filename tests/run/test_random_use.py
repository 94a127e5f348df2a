"""Command lines and files that nobody chose: each ends well, or in one line, no traceback."""

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vae_jax.run import command, data, main, several
from vae_jax.run.errors import DataError, UsageError
from vae_jax.run.options import OwnData

NUMBERS = [
    "0",
    "1",
    "2",
    "-1",
    "7",
    "128",
    "1e-3",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "",
    "ten",
    "2**3",
]
WORDS = [
    "auto",
    "mnist",
    "digits",
    "none",
    "dynamic",
    "conv",
    "mlp",
    "cpu",
    "/nowhere",
    ".",
    "ü",
    "--",
]
OPTIONS = [
    "--dataset",
    "--binarization",
    "--data-dir",
    "--manual-dir",
    "--network",
    "--precision",
    "--latent-dim",
    "--hidden",
    "--channels",
    "--conditional",
    "--prior",
    "--embedding-dim",
    "--epochs",
    "--patience",
    "--batch-size",
    "--accumulate",
    "--optimizer",
    "--learning-rate",
    "--clip-norm",
    "--average-decay",
    "--seed",
    "--init-from",
    "--num-devices",
    "--shard-parameters",
    "--remat",
    "--stream",
    "--workers",
    "--coordinator",
    "--num-processes",
    "--process-id",
    "--num-importance-samples",
    "--num-class-samples",
    "--accelerator",
    "--output",
    "--resume",
    "--overwrite",
    "--keep",
    "--checkpoint-seconds",
    "--tensorboard",
    "--select",
    "--max-minutes",
    "--image-size",
    "--background",
    "--images-key",
    "--labels-key",
    "--label",
    "--num",
    "--reconstruct-as",
    "--num-samples",
    "--data",
    "--no-such-option",
    "--help",
]

value = st.sampled_from(NUMBERS + WORDS)
argument = st.one_of(
    st.builds("{}={}".format, st.sampled_from(OPTIONS), value),
    st.sampled_from(OPTIONS),
    value,
)
line = st.tuples(
    st.sampled_from(["mnist", "train", "generate", "evaluate", "nothing", "--help"]),
    st.lists(argument, max_size=6),
).map(lambda parts: [parts[0], *parts[1]])


def check_line(arguments, monkeypatch, capsys):
    """Runs a command line up to where it would load data and train."""
    for name in "_alone", "_several":
        monkeypatch.setattr(several, name, lambda *_, **__: None)
    monkeypatch.setattr("sys.argv", ["vae-jax", *arguments])
    status = 0
    try:
        main.main()
    except SystemExit as end:
        status = end.code or 0
    said = capsys.readouterr()
    assert status in (0, 1, 2), (arguments, said)
    assert "Traceback" not in said.err + said.out
    if status:
        lines = said.err.split("\n")
        assert len(lines) == 2, (arguments, said)
        assert lines[0].startswith("error: "), (arguments, said)
        assert not lines[1], (arguments, said)


@pytest.mark.parametrize("num", [60, pytest.param(2000, marks=pytest.mark.long)])
def test_random_command_lines(num, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    @settings(
        max_examples=num, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(line)
    def check(arguments):
        check_line(arguments, monkeypatch, capsys)

    check()


def npy(array):
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def picture(array, suffix):
    content = io.BytesIO()
    Image.fromarray(array).save(content, suffix)
    return content.getvalue()


def random_file(seed):
    """A name and content: an array or a picture of some type and shape, often damaged."""
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(0, 30, random.integers(0, 6)).tolist())
    dtype = random.choice(
        ["u1", "i1", "?", "i8", "f4", "f8", ">u2", "c8", "O", "U3", "S2", "M8[s]"]
    )
    kind = random.choice(["npy", "npz", "png", "tiff", "gif", "txt", ""])
    if kind in ("png", "tiff", "gif"):
        content = picture(
            random.integers(0, 256, (5, 4, 3)[: random.choice([2, 3])], np.uint8), kind
        )
    elif kind == "npz":
        buffer = io.BytesIO()
        names = random.choice(
            ["images", "labels", "x_train", "x_test", "y", "arr_0"], 2, replace=False
        )
        np.savez(buffer, **{n: (random.random(shape) * 3).astype("u1") for n in names})
        content = buffer.getvalue()
    else:
        values = random.random(shape) * random.choice([1, 255, 1e5]) - random.choice([0, 0, 1])
        content = npy(
            values.astype(dtype) if dtype != "M8[s]" else values.astype(int).astype(dtype)
        )
    if random.random() < 0.3:
        content = content[: random.integers(0, len(content) + 1)]
    if random.random() < 0.2 and content:
        place = random.integers(len(content))
        content = content[:place] + bytes([random.integers(256)]) + content[place + 1 :]
    return f"a.{kind}" if kind else "a", content


@pytest.mark.filterwarnings("ignore")  # NumPy's own, of casts to nonsense
@pytest.mark.parametrize("num", [100, pytest.param(500, marks=pytest.mark.long)])
def test_random_files(num, tmp_path):
    for seed in range(num):
        name, content = random_file(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / name).write_bytes(content)
        for path in folder, folder / name:
            said = ""
            try:
                data.load(OwnData(str(path)))
            except (DataError, UsageError) as error:
                said = str(error)
            assert "\n" not in said, seed


def test_the_last_of_two_values_counts():
    """As it does for the parser: --resume must not read another folder's options."""
    arguments = ["--output=one", "--resume", "--output", "two"]
    assert command.option_value(arguments, "--output") == "two"
