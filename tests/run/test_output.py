"""What a command leaves is whole or not there."""

import numpy as np
import pytest

from vae_jax.run import output
from vae_jax.run.errors import RunError

SHAPE = (6, 5, 1)


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "images.npy"
    path.write_text("before")

    def fail(place):
        with output.pictures(place, (2, *SHAPE)) as out:
            out[0:1] = np.zeros((1, *SHAPE))
            raise KeyError

    for place in path, tmp_path / "new":
        with pytest.raises(KeyError):
            fail(place)
    assert [p.name for p in tmp_path.iterdir()] == ["images.npy"]
    assert path.read_text() == "before"
    # What one that was killed has left is no hindrance.
    (tmp_path / ".new.partial").mkdir()
    with output.pictures(tmp_path / "new", (1, *SHAPE)) as out:
        out[0:1] = np.ones((1, *SHAPE))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["00000.png"]
    with pytest.raises(RunError, match="cannot write"):
        output.write_columns({}, {"a": np.zeros(2)}, path / "a.npy")


def test_files_whose_names_would_fall_together_keep_their_endings():
    assert output._file_names(2, np.array(["a.jpg", "b.png"])) == ["a.png", "b.png"]
    assert output._file_names(2, np.array(["a.jpg", "a.png"])) == ["a.jpg.png", "a.png.png"]
    assert output._file_names(2, np.array([7, 9])) == ["00000.png", "00001.png"]
