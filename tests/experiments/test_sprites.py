"""Sprites: their factors, measured from the pictures."""

import itertools

import numpy as np
import pytest

from experiments import sprites

PIXEL = 1 / sprites.SIZE


def moments(pictures):
    """Area, centre (from the left, from the bottom) and covariance, in units of the picture."""
    weight = np.asarray(pictures, np.float64)[..., 0]
    at = (np.arange(sprites.SIZE) + 0.5) * PIXEL
    right, up = at[None, None, :], at[None, ::-1, None]
    total = weight.sum(axis=(1, 2))

    def mean(values):
        return (weight * values).sum(axis=(1, 2)) / total

    centre = np.stack([mean(right), mean(up)], axis=-1)
    away = [right - centre[:, 0, None, None], up - centre[:, 1, None, None]]
    covariance = np.array([[mean(a * b) for a in away] for b in away]).transpose(2, 0, 1)
    return total * PIXEL**2, centre, covariance


def test_area_is_that_of_the_geometry():
    scale = np.arange(6)
    size = 0.1 + 0.02 * scale
    expected = {0: (2 * 0.7) ** 2, 1: np.pi / 2, 2: 2 * 0.7**2 + np.pi * (0.7 / np.sqrt(2)) ** 2}
    for shape, of_size_one in expected.items():
        area, _, _ = moments(sprites.draw(sprites.Factors(shape, scale, 7, 16, 16)))
        np.testing.assert_allclose(area, of_size_one * size**2, rtol=0.05)


def test_the_centre_is_where_x_and_y_say():
    place = np.arange(32)
    for shape in (0, 1):  # symmetric: the centre of mass is the centre
        _, centre, _ = moments(sprites.draw(sprites.Factors(shape, 2, 5, place, place[::-1])))
        np.testing.assert_allclose(centre[:, 0], 0.2 + 0.6 * place / 31, atol=0.01)
        np.testing.assert_allclose(centre[:, 1], 0.2 + 0.6 * place[::-1] / 31, atol=0.01)


def test_the_long_axis_of_an_ellipse_has_the_angle():
    angle = np.arange(40)
    _, _, covariance = moments(sprites.draw(sprites.Factors(1, 5, angle, 16, 16)))
    long = np.linalg.eigh(covariance)[1][:, :, -1]
    expected = 2 * np.pi * angle / 40
    along = abs(long[:, 0] * np.cos(expected) + long[:, 1] * np.sin(expected))
    np.testing.assert_allclose(along, 1, atol=0.01)


def test_a_heart_points_down_and_turns_counterclockwise():
    factors = sprites.Factors(2, 5, [0, 10, 20, 30], 16, 16)
    _, centre, _ = moments(sprites.draw(factors))
    away = centre - (0.2 + 0.6 * 16 / 31)  # its two lobes are heavier than its tip
    np.testing.assert_allclose(away[0], [0, away[0, 1]], atol=1e-3)
    assert away[0, 1] > 0.01
    quarter = np.array([[0, -1], [1, 0]])
    for before, after in itertools.pairwise(away):
        np.testing.assert_allclose(after, quarter @ before, atol=4e-3)


def test_every_sprite_is_whole():
    corners = np.array(
        [(s, a, x, y) for s in range(3) for a in range(40) for x in (0, 31) for y in (0, 31)]
    )
    pictures = sprites.draw(sprites.Factors(corners[:, 0], 5, *corners[:, 1:].T))
    inner, _, _ = moments(pictures)
    middle, _, _ = moments(sprites.draw(sprites.Factors(corners[:, 0], 5, corners[:, 1], 16, 16)))
    np.testing.assert_allclose(inner, middle, rtol=0.05)


def test_different_factors_are_different_pictures_and_the_same_are_the_same():
    factors = sprites.sample_factors(np.random.default_rng(0), 500)
    for values, size in zip(factors, sprites.SIZES, strict=True):
        assert set(values) <= set(range(size))
        assert len(set(values)) == min(size, len(set(values)))
    pictures = sprites.draw(factors)
    assert pictures.shape == (500, 32, 32, 1)
    assert pictures.dtype == np.float32
    np.testing.assert_array_equal(
        pictures[123:124], sprites.draw(sprites.Factors(*(v[123] for v in factors)))
    )
    turned = sprites.draw(sprites.Factors(2, 3, np.arange(40), 16, 16)).reshape(40, -1)
    assert len(np.unique(turned, axis=0)) == 40


@pytest.mark.parametrize(
    "wrong", [{"shape": 3}, {"scale": -1}, {"angle": [0, 40]}, {"x": 1.5}, {"y": 32}]
)
def test_a_factor_out_of_range_is_refused(wrong):
    factors = sprites.Factors(0, 0, 0, 0, 0)._replace(**wrong)
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is .*: pass integers from 0 to"):
        sprites.draw(factors)
