"""The whole program: what the chapters took apart, in one file to type, run and change."""

import contextlib
import io
import re
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.tutorial import page, whole
from experiments.tutorial.study import Study

TEXT = r"""
Here is everything in one file: encoder, decoder, loss, training, new images, and the conditional
model that can be asked for a 2. It needs nothing of this page. Copy it into an empty folder as
`whole.py`, and

| to have | type |
| the library and the digits | `pip install "vae_jax[run]"` |
| the program run, on 8x8 digits | `python whole.py` |
| your own images | `python whole.py images.npz` |

A file of your own has `image`, whole numbers from 0 to 255, [N, H, W], and `label`, classes from 0
to 9, [N]: `np.savez("images.npz", image=..., label=...)` makes one of any arrays, such as those of
Fashion-MNIST. The [[num_lines]] lines train two models, each for [[steps]] steps of [[batch_size]]
images with a learning rate that falls from [[learning_rate]] to 0 along a cosine; their encoders
and decoders have one hidden layer of [[hidden]] units and [[latent_dim]] latent dimensions.

Run for this page it wrote a test ELBO of [[elbo.unconditional:.2f]] nats for the VAE and
[[elbo.conditional:.2f]] for the conditional one, and this picture, which is its `whole.png`:

![whole]

The losses are those of [#autoencoder] and [#conditional], and the update is that of
[#optimisation]. The other chapters use `vae_jax.run.fit` for the loop, which adds progress,
validation, checkpoints and resuming, and ready-made networks for the two classes at the top.

A class is told by a 4 among nine zeros, where a 1 is usual. A 1 is soft beside hundreds of pixels
and ten codes: on larger images the codes learn to hold the class themselves before it is heard, and
who then asks for a class often gets another. In Fashion-MNIST class 2 is the pullover; its 60,000
images take more steps than digits do, `STEPS = 10000` or so.

**Things to change first.** The line of settings: `LATENTS = 2` gives the plane of [#latent]. In
`variational_loss`, a weight before the KL, `-(bound.log_likelihood - 4 * bound.kl).mean()` in the
place of `-bound.value.mean()`, gives a beta of 4, which is too much for digits: their codes
collapse. For grey pixels, as in [#likelihood], the decoder answers with `vae_jax.Normal` and a
standard deviation, `vae_jax.Normal(logits.reshape(len(z), *self.shape), 0.1, event_ndims=3)`, and
both losses take `x = batch.image / 255`. At the end of `main`, `z` can be any 20 codes: with two
latent dimensions, `jnp.stack(jnp.meshgrid(jnp.linspace(-2, 2, 10), jnp.array([1, -1])),
-1).reshape(-1, 2)` is two lines across the plane.
"""

EXERCISES = (
    (
        "Set `LATENTS` to 2. What happens to the two test ELBOs, and which loses less?",
        "[[plane.unconditional:.2f]] and [[plane.conditional:.2f]] nats, where they were "
        "[[elbo.unconditional:.2f]] and [[elbo.conditional:.2f]]. Two dimensions are few for both; "
        "the conditional model need not spend them on the class.",
    ),
    (
        "Set `STEPS` to 300. How far is it from the end of training?",
        "The test ELBO is [[short.unconditional:.2f]] nats, against "
        "[[elbo.unconditional:.2f]] after [[steps]] steps.",
    ),
    (
        "Delete the KL: let `loss` return `-bound.log_likelihood.mean(), bound`. What do the first "
        "two rows of the picture become, and why does the test ELBO that is printed rise?",
        "Fragments: draws of the prior are not where the codes are. What is printed is minus the "
        "loss, no longer a bound: it is the reconstruction alone, "
        "[[fidelity.unconditional:.2f]] nats.",
    ),
    (
        "Why are the images made black and white inside the loss and not once before training?",
        "Each time an image is seen its pixels are drawn anew, so that the model cannot learn one "
        "draw by heart; the mean of the draws is the grey image.",
    ),
    (
        "The program asks for twenty 2s. Ask for twenty pictures halfway between a 2 and a 7.",
        "In `main`, `jnp.broadcast_to((classes[2] + classes[7]) / 2, (20, 10))` for `twos`: the "
        "class is ten numbers, and nothing keeps them from being two halves. The model never "
        "saw such a class, and nothing promises that it draws something between.",
    ),
)


def run(study: Study) -> page.Chapter:
    said, picture = typed()
    numbers = {
        "num_lines": len(Path(whole.__file__).read_text().splitlines()),
        "latent_dim": whole.LATENTS,
        "hidden": whole.HIDDEN,
        "steps": whole.STEPS,
        "batch_size": whole.BATCH_SIZE,
        "learning_rate": whole.LEARNING_RATE,
        "elbo": elbos(said),
        "plane": elbos(typed(("= 10, 128, 3000,", "= 2, 128, 3000,"))[0]),
        "short": elbos(typed(("= 10, 128, 3000,", "= 10, 128, 300,"))[0]),
        "fidelity": elbos(
            typed(("-bound.value.mean(), bound", "-bound.log_likelihood.mean(), bound"))[0]
        ),
    }
    shown = page.figure(
        picture,
        "Four rows of ten digits: two of all kinds, and two in which every digit is a 2.",
        "Two rows of the VAE's draws and two of the conditional VAE's, asked for a 2.",
    )
    return page.Chapter(
        "The whole program", TEXT, numbers, {"whole": shown}, (whole,), exercises=EXERCISES
    )


def typed(*changes: tuple[str, str]) -> tuple[str, Image.Image]:
    """What the program prints and its picture, enlarged, with pieces of its text replaced."""
    source = Path(whole.__file__).read_text()
    for before, after in changes:
        assert before in source
        source = source.replace(before, after)
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with contextlib.redirect_stdout(said):
            names: dict[str, Any] = {"__name__": whole.__name__}
            exec(compile(source, "whole.py", "exec"), names)
            names["main"]()
        with Image.open("whole.png") as image:
            small = image.convert("L")
    return said.getvalue(), small.resize((12 * small.width, 12 * small.height), Image.NEAREST)


def elbos(said: str) -> dict[str, float]:
    plain, conditional = map(float, re.findall(r"test: ELBO (\S+)", said))
    return {"unconditional": plain, "conditional": conditional}
