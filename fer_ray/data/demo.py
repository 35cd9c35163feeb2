"""Rendered demo faces: the seven expressions of FER2013 drawn from FACS action units, deterministic by seed.

An image is identity, expression and circumstances (pose, light, camera, occlusion), each drawn independently.
Expressions start from the prototypes of EMFACS (W. V. Friesen and P. Ekman, EMFACS-7, 1983); action units are those of
P. Ekman, W. V. Friesen and J. C. Hager, Facial Action Coding System, 2002, with intensities from 0 (absent) to 1
(level E). Figures obtained on these faces say nothing about real ones.

All parameters were fixed before the first sweep was tuned, so that a logistic regression on the pixels of "real" faces
scores between 1.5 and 3 times chance while people name the expressions at a glance. Change them and every figure that
was obtained on demo faces changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fer_ray.data.demo_drawing import Array, Numbers, draw
from fer_ray.errors import UserError, nearest
from fer_ray.labels import FER2013

CHUNK = 12  # images drawn at once: temporary arrays below 128 KB are reused rather than asked of the system

ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 16, 17, 20, 23, 25, 26, 43)

PROTOTYPES: Mapping[str, tuple[Mapping[int, float], ...]] = {
    "angry": (
        {4: 1.0, 5: 0.5, 7: 0.5, 23: 0.9},
        {4: 1.0, 5: 0.4, 7: 0.6, 10: 0.6, 16: 0.3, 23: 0.4, 25: 0.7, 26: 0.2},
        {4: 0.9, 7: 0.9, 17: 0.5, 23: 0.9},
    ),
    "disgust": (
        {9: 1.0, 10: 0.7, 16: 0.5, 25: 0.5, 4: 0.3, 7: 0.4},
        {9: 0.9, 10: 0.4, 15: 0.4, 17: 0.6, 7: 0.5},
        {9: 0.5, 10: 1.0, 16: 0.4, 25: 0.4, 6: 0.3, 7: 0.4},
    ),
    "fear": (
        {1: 1.0, 2: 0.5, 4: 0.7, 5: 0.9, 20: 0.9, 25: 0.6, 26: 0.2},
        {1: 0.9, 2: 0.4, 4: 0.8, 5: 1.0, 20: 0.8, 25: 0.8, 26: 0.4},
        {1: 1.0, 4: 0.7, 5: 0.9, 20: 1.0, 25: 0.3},
    ),
    "happy": (
        {6: 0.8, 12: 1.0, 25: 0.8},
        {6: 0.6, 12: 0.8},
        {6: 1.0, 7: 0.3, 12: 1.0, 25: 1.0, 26: 0.5},
    ),
    "sad": (
        {1: 0.9, 4: 0.5, 15: 1.0, 43: 0.3},
        {1: 1.0, 4: 0.4, 15: 0.8, 17: 0.7, 43: 0.4},
        {1: 0.7, 4: 0.6, 15: 0.9, 43: 0.5, 25: 0.2},
    ),
    "surprise": (
        {1: 1.0, 2: 1.0, 5: 0.8, 25: 1.0, 26: 1.0},
        {1: 0.9, 2: 0.9, 5: 0.6, 25: 0.9, 26: 0.6},
        {1: 1.0, 2: 1.0, 5: 1.0, 25: 0.7, 26: 0.8},
    ),
    "neutral": ({}, {25: 0.1}, {43: 0.15}),
}
"""Intensity of each action unit, by class; the first variant is the textbook one."""

VALENCE = {1: -0.3, 4: -0.5, 6: 0.5, 9: -0.6, 10: -0.4, 12: 1.4, 15: -0.9, 16: -0.2, 17: -0.2, 20: -0.6, 23: -0.5}
AROUSAL = {2: 0.5, 4: 0.3, 5: 0.9, 7: 0.3, 9: 0.5, 12: 0.4, 15: -0.3, 20: 0.5, 23: 0.3, 25: 0.2, 26: 0.7, 43: -1.0}
"""Weights of the action units in valence and arousal; signs follow the circumplex of Russell (1980)."""

AROUSAL_AT_REST = -0.3

IDENTITY: Mapping[str, tuple[float, float]] = {
    "head_width": (0.78, 0.036),
    "head_height": (0.96, 0.03),
    "eye_x": (0.38, 0.015),
    "eye_y": (-0.17, 0.015),
    "eye_width": (0.24, 0.0108),
    "eye_height": (0.118, 0.0072),
    "iris": (0.105, 0.0048),
    "brow_gap": (0.28, 0.012),
    "brow_length": (0.44, 0.018),
    "brow_thickness": (0.076, 0.006),
    "brow_arch": (0.035, 0.012),
    "nose_y": (0.19, 0.018),
    "nose_width": (0.13, 0.012),
    "mouth_y": (0.52, 0.018),
    "mouth_width": (0.36, 0.018),
    "lip": (0.068, 0.0096),
    "hairline": (-0.72, 0.06),
    "age": (0.35, 0.15),
}
"""Mean and standard deviation over people; lengths in half image sides, y down, from the centre of the head."""


@dataclass(frozen=True)
class Domain:
    """How widely the faces of one domain vary, and how its expressions are biased."""

    identity: float  # scale of IDENTITY's standard deviations
    variants: int  # of PROTOTYPES, from the first
    intensity: tuple[float, float]  # of a whole expression
    stray: float  # probability of an action unit that does not belong to the expression
    gain: Mapping[int, float]  # of action units that the domain overdoes or underdoes
    rotation: float  # standard deviation, radians
    shift: float  # largest, along each axis, half image sides
    zoom: tuple[float, float]  # mean and standard deviation
    turn: float  # standard deviation of yaw and pitch, half image sides by which the features move
    light: float  # largest relative change of brightness across half the head
    skin: tuple[float, float]  # brightness
    contrast: tuple[float, float]
    blur: tuple[float, float]  # share of the blurred image
    noise: float  # largest standard deviation
    occlusion: float  # probability, for each kind
    shortcut: float  # how far the tone of the background gives the class away, as generators trained by class do


DOMAINS = {
    "real": Domain(
        identity=1.0,
        variants=3,
        intensity=(0.8, 1.0),
        stray=0.02,
        gain={},
        rotation=0.05,
        shift=0.3,
        zoom=(0.95, 0.03),
        turn=0.04,
        light=0.12,
        skin=(0.58, 0.88),
        contrast=(0.9, 1.2),
        blur=(0.0, 0.4),
        noise=0.1,
        occlusion=0.04,
        shortcut=0.0,
    ),
    "synthetic": Domain(
        identity=0.5,
        variants=1,
        intensity=(0.85, 1.0),
        stray=0.0,
        gain={1: 0.4, 2: 0.4, 4: 0.3, 5: 0.3, 6: 0.3, 9: 0.5},
        rotation=0.02,
        shift=0.03,
        zoom=(1.1, 0.02),
        turn=0.015,
        light=0.1,
        skin=(0.65, 0.85),
        contrast=(1.1, 1.3),
        blur=(0.6, 1.0),
        noise=0.01,
        occlusion=0.0,
        shortcut=0.9,
    ),
}


@dataclass(frozen=True)
class DemoFaces:
    """Faces with their class and affect; the arrays share their first axis."""

    images: NDArray[np.uint8]
    """[n, size, size, 1], grey, 0 to 255."""
    labels: NDArray[np.int16]
    """[n], index into `fer_ray.labels.FER2013`."""
    valence: NDArray[np.float32]
    """[n], -1 (unpleasant) to 1 (pleasant)."""
    arousal: NDArray[np.float32]
    """[n], -1 (calm) to 1 (excited)."""


def render(num_images: int, *, domain: Literal["real", "synthetic"], seed: int, size: int = 48) -> DemoFaces:
    """Draws `num_images` grey faces of `size` pixels, as many of each class as can be, in random order.

    The same arguments give the same arrays; other seeds and the other domain give other people.
    Raises UserError for fewer than one image, a size below 16 pixels, a negative seed, or an unknown domain.
    """
    if num_images < 1 or size < 16 or seed < 0:
        raise UserError(
            "demo faces need at least 1 image of at least 16 pixels and a seed from 0 on, "
            f"got {num_images} of {size} pixels with seed {seed}"
        )
    if domain not in DOMAINS:
        raise UserError(f"unknown domain of demo faces: {domain!r}{nearest(domain, DOMAINS)}")
    rng = np.random.default_rng([seed, list(DOMAINS).index(domain)])
    traits = DOMAINS[domain]
    labels = rng.permutation(np.arange(num_images) % len(FER2013)).astype(np.int16)
    units = _action_units(rng, labels, traits)
    numbers = _identity(rng, num_images, traits) | _circumstances(rng, labels, traits)
    numbers |= {f"au{unit}": intensity for unit, intensity in units.items()}
    images = np.empty((num_images, size, size, 1), np.uint8)
    for start in range(0, num_images, CHUNK):
        part = slice(start, start + CHUNK)
        drawn = draw({name: values[part, None] for name, values in numbers.items()}, size, rng)
        images[part, :, :, 0] = np.rint(255 * drawn).reshape(-1, size, size)
    return DemoFaces(images, labels, _affect(units, VALENCE, 0.0), _affect(units, AROUSAL, AROUSAL_AT_REST))


def _action_units(rng: np.random.Generator, labels: NDArray[np.int16], traits: Domain) -> dict[int, Array]:
    table = np.zeros((len(FER2013), traits.variants, len(ACTION_UNITS)))
    for label, name in enumerate(FER2013):
        for variant, prototype in enumerate(PROTOTYPES[name][: traits.variants]):
            for unit, intensity in prototype.items():
                table[label, variant, ACTION_UNITS.index(unit)] = intensity * traits.gain.get(unit, 1.0)
    shape = (len(labels), len(ACTION_UNITS))
    expected = table[labels, rng.integers(traits.variants, size=len(labels))]
    strength = rng.uniform(*traits.intensity, size=(len(labels), 1))
    intensities = expected * strength * rng.uniform(0.75, 1.15, size=shape)
    intensities += (rng.random(shape) < traits.stray) * rng.uniform(0.1, 0.4, size=shape)
    return dict(zip(ACTION_UNITS, np.clip(intensities, 0, 1).astype(np.float32).T, strict=True))


def _affect(units: Mapping[int, Array], weights: Mapping[int, float], rest: float) -> NDArray[np.float32]:
    """Linear in the action units, then squashed into (-1, 1) by x / sqrt(1 + x^2)."""
    total = sum((np.float32(weight) * units[unit] for unit, weight in weights.items()), np.float32(rest))
    return np.asarray(total / np.sqrt(1 + total * total), np.float32)


def _identity(rng: np.random.Generator, num_images: int, traits: Domain) -> Numbers:
    def uniform(low: float, high: float) -> Array:
        return rng.uniform(low, high, num_images).astype(np.float32)

    person = {
        name: (mean + traits.identity * sd * np.clip(rng.standard_normal(num_images), -2, 2)).astype(np.float32)
        for name, (mean, sd) in IDENTITY.items()
    }
    skin = uniform(*traits.skin)
    person |= {
        "skin": skin,
        "hair": np.minimum(uniform(0.05, 0.75), skin * 0.85),
        "volume": uniform(0.04, 0.2),
        "parting": 0.5 * uniform(-1, 1),
        "temples": uniform(-0.1, 0.9),
        "bald": (uniform(0, 1) < 0.12 * traits.identity).astype(np.float32),
        "long_hair": (uniform(0, 1) < 0.4).astype(np.float32),
        "beard": (uniform(0, 1) < 0.2 * traits.identity) * uniform(0.2, 0.6),
        "cheek": uniform(0, 0.5),
    }
    return person


def _circumstances(rng: np.random.Generator, labels: NDArray[np.int16], traits: Domain) -> Numbers:
    num_images = len(labels)

    def uniform(low: float, high: float) -> Array:
        return rng.uniform(low, high, num_images).astype(np.float32)

    def normal(sd: float) -> Array:
        return (sd * np.clip(rng.standard_normal(num_images), -2, 2)).astype(np.float32)

    def sometimes(probability: float) -> Array:
        return (rng.random(num_images) < probability).astype(np.float32)

    given_away = (labels / (len(FER2013) - 1)).astype(np.float32)
    slope = normal(traits.rotation / 2)  # of half the angle, from which its cosine and sine are rational
    return {
        "cos": (1 - slope * slope) / (1 + slope * slope),
        "sin": 2 * slope / (1 + slope * slope),
        "shift_x": uniform(-traits.shift, traits.shift),
        "shift_y": uniform(-traits.shift, traits.shift),
        "zoom": traits.zoom[0] + normal(traits.zoom[1]),
        "yaw": normal(traits.turn),
        "pitch": normal(0.6 * traits.turn),
        "gaze": normal(0.025),
        "tilt": normal(0.03),
        "light_x": uniform(-traits.light, traits.light),
        "light_y": uniform(-traits.light, 0.5 * traits.light),
        "background": (1 - traits.shortcut) * uniform(0.1, 0.9) + traits.shortcut * given_away,
        "background_slope": normal(0.2),
        "contrast": uniform(*traits.contrast),
        "brightness": normal(0.08 * traits.identity),
        "blur": uniform(*traits.blur),
        "noise": uniform(0, traits.noise),
        "glasses": sometimes(1.5 * traits.occlusion),
        "hand": sometimes(0.7 * traits.occlusion),
        "hand_side": 2 * sometimes(0.5) - 1,
        "bar": sometimes(0.7 * traits.occlusion),
        "bar_x": uniform(-1, 1),
        "bar_tone": uniform(0, 1),
    }
