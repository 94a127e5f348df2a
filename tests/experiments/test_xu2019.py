"""What made-up rows are measured by: copies, rows without any dependence, and a model's."""

import json

import numpy as np
import pytest

from experiments.papers import __main__ as page
from experiments.papers import xu2019

pd = pytest.importorskip("pandas")


def frame_of(seed: int, num: int = 600):
    """A class that follows from a number and another class."""
    rng = np.random.default_rng(seed)
    height, town = rng.normal(170, 10, num), rng.choice(["Riga", "Oslo"], num)
    rich = (height > 172) | (town == "Oslo")
    return pd.DataFrame({"height": height, "town": town, "rich": np.where(rich, "yes", "no")})


def test_copies_are_told_from_new_rows_and_dependence_from_none():
    train, test, new = map(frame_of, range(3))
    judge = xu2019.Judge(train, test, "rich")
    copies, others = judge.measured(train), judge.measured(new)
    alone = {name: new[name].sample(frac=1, random_state=i) for i, name in enumerate(new)}
    shuffled = judge.measured(pd.DataFrame({name: of.to_numpy() for name, of in alone.items()}))
    assert copies["copies"] == 1
    assert copies["nearest"] == 1
    assert 0.01 < others["nearest"] < 0.15
    assert copies["accuracy"] > 0.95
    assert others["accuracy"] > 0.95
    assert shuffled["accuracy"] < 0.8
    # The same rows in another order have the columns' distributions, and none of their relations.
    assert shuffled["distance"] == pytest.approx(others["distance"], abs=1e-9)
    assert shuffled["correlation"] > others["correlation"] + 0.1


def test_distances_and_associations_are_those_of_their_definitions():
    from scipy.stats import chi2_contingency

    cells = pd.DataFrame({"a": list("xxyyyzzz"), "b": list("ppqqpqqp"), "c": list("kkkkkkkk")})
    found = xu2019._associations(cells)
    chi2 = chi2_contingency(pd.crosstab(cells["b"], cells["a"]), correction=False).statistic
    np.testing.assert_allclose(found, [np.sqrt(chi2 / 8), 0, 0])
    # Shares 2/8, 3/8, 3/8 against 0, 4/8, 4/8.
    assert xu2019._variation(cells["a"], pd.Series(list("yyzz"))) == pytest.approx(0.25)


@pytest.mark.long
def test_rows_are_made_up_and_measured(command, tmp_path):
    frame_of(0).to_csv(tmp_path / "people.csv", index=False)
    done = command(
        *("papers.xu2019", f"--data={tmp_path}/people.csv", "--target=rich", "--steps=300"),
        *("--num=500", "--rival-epochs=0", "--hidden=32", f"--output={tmp_path}/run"),
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["name"] for row in results["rows"]] == ["real", "VAE"]
    assert len(pd.read_csv(tmp_path / "run" / "VAE.csv")) == 500
    assert page.page([results])
    done = command("papers.xu2019", f"--data={tmp_path}/people.csv", "--target=height")
    assert done.returncode == 2
    assert "--target=height is no column of two classes" in done.stderr
