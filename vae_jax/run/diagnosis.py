"""What ails a finished run, in plain words: what is ill, fine, or not to be told."""

from collections.abc import Sequence

import numpy as np

from vae_jax.evaluation.batched import standard_error
from vae_jax.run import illnesses
from vae_jax.run.illnesses import Course, Finding
from vae_jax.run.probe import Probe

# Three standard errors of a mean over fewer are more than a medium effect: nothing can be said of
# them that allows for no chance.
_FEWEST = 36


def lines(findings: Sequence[Finding]) -> list[str]:
    """The findings for a terminal, the ill ones first, each with its remedy."""
    ill = [finding for finding in findings if finding.ill]
    judged = [finding for finding in findings if finding.ill is not None]
    untold = f", {len(findings) - len(judged)} not judged" * (len(judged) < len(findings))
    said = [f"{len(ill) or 'none'} of {len(judged)} illnesses found{untold}"]
    for finding in ill:
        said += [f"ILL   {finding.name}: {finding.said}", f"      remedy: {finding.remedy}"]
    for word, state in ("fine", False), ("?   ", None):
        said += [f"{word}  {of.name}: {of.said}" for of in findings if of.ill is state]
    return said


@np.errstate(invalid="ignore")  # what is not finite is not judged
def diagnose(found: Probe, course: Course) -> list[Finding]:
    """Every finding of a run, ill or not, those of the model first.

    What cannot be measured of a run, as the use of labels where it has none, is left out. What is
    measured but tells nothing, as it is no finite number or of too few examples, is not judged: its
    `ill` is None, and `said` begins with why.
    """
    few = min(len(found.elbo["train"]), len(found.elbo["test"]))
    why_few = f"{few} examples are too few" if few < _FEWEST else ""
    why_one = "one epoch is too few" if len(course.rows) < 2 else ""
    # What allows for chance is ill of few examples too; but to be fine there must be more.
    findings = [
        _told_by(why_few, illnesses.collapsed(found)),
        _told_by(why_few or _why_noisy(found), illnesses.code_ignored(found), of_chance=True),
        _told_by(why_few, illnesses.label_ignored(found)),
        _told_by(why_few, illnesses.overfit(found), of_chance=True),
        _told_by(why_few, illnesses.underfit(found)),
        _told_by(why_few, illnesses.too_few_latents(found)),
        _told_by(why_few, illnesses.misfit(found), of_chance=True),
        _told_by(why_few, illnesses.narrow(found)),
        _told_by(why_few, illnesses.apart(found)),
        illnesses.unfinished(course),
        illnesses.unmoved(course),
        _told_by(why_one or why_few, illnesses.still_rising(found, course)),
    ]
    return [_checked(of) for of in findings if of is not None]


def _why_noisy(found: Probe) -> str:
    """Why a code's gain tells nothing: it has no cost, or a gain of 0 could be that by chance."""
    if not (found.moved > 0.01).any():
        return "no latent is used"
    chance = illnesses.ERRORS * standard_error(found.code_gain)
    noisy = found.code_gain.mean() < found.kl <= chance
    return "its standard error is too large" if noisy else ""


def _told_by(why: str, of: Finding | None, *, of_chance: bool = False) -> Finding | None:
    """The finding, not judged where there is a reason and it is not beyond chance."""
    if of is None or not why or (of_chance and of.ill):
        return of
    return of._replace(ill=None, said=f"not judged, as {why}: {of.said}")


def _checked(of: Finding) -> Finding:
    """The finding in Python's types, not judged by what is no finite number."""
    number, threshold = float(of.number), float(of.threshold)
    of = of._replace(
        number=number, threshold=threshold, ill=None if of.ill is None else bool(of.ill)
    )
    if of.ill is not None and not np.isfinite([number, threshold]).all():
        of = of._replace(ill=None, said=f"not judged, as not all numbers are finite: {of.said}")
    return of
