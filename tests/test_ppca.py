"""Probabilistic PCA agrees with its paper, and `python -m fer_ray.synthesize ppca` looks at training faces only."""

from pathlib import Path

import numpy as np
import pytest
from faces import SHARED_DATA, csv_row, random_faces, write_csv
from sklearn.decomposition import PCA

from fer_ray.data.readers import Form, fer_parquet
from fer_ray.data.store import open_dataset
from fer_ray.errors import UserError
from fer_ray.labels import FER2013
from fer_ray.synthesis import ppca
from fer_ray.synthesize import __main__ as synthesize

USAGES = ("Training",) * 4 + ("PublicTest", "PrivateTest")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("FER_RAY_CACHE", str(folder))
    return folder


def low_rank_faces(count: int, seed: int = 0, side: int = 6, rank: int = 5) -> np.ndarray:
    """uint8 [count, side, side, 1]: a few strong directions, and weak noise, around grey."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((rank, side * side)) * np.linspace(12, 4, rank)[:, None]
    pixels = 128 + rng.standard_normal((count, rank)) @ directions + 2 * rng.standard_normal((count, side * side))
    return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8).reshape(count, side, side, 1)


def small_csv(path: Path, held_out_seed: int = 0) -> Path:
    """Every class four times in training and once in each test half; the class sets the brightness."""
    training, held_out = random_faces(28) // 8, random_faces(14, 100 + held_out_seed) // 8
    rows = []
    for label in range(len(FER2013)):
        images = [*training[4 * label : 4 * label + 4], *held_out[2 * label : 2 * label + 2]]
        rows += [csv_row(label, image + 32 * label, usage) for image, usage in zip(images, USAGES, strict=True)]
    return write_csv(path, rows)


def run(*arguments: object) -> int:
    return synthesize.command(["ppca", *map(str, arguments)])


def test_the_fitted_covariance_is_that_of_scikit_learn() -> None:
    faces = low_rank_faces(2_000)
    model = ppca.fit(faces, 5)
    reference = PCA(5, svd_solver="full").fit(faces.reshape(2_000, -1).astype(np.float64))
    biased = (2_000 - 1) / 2_000  # maximum likelihood divides by n
    signal = (reference.get_covariance() - reference.noise_variance_ * np.eye(36)) * biased
    np.testing.assert_allclose(model.loadings.T @ model.loadings, signal, atol=0.02 * signal.diagonal().max())
    np.testing.assert_allclose(
        model.posterior_std**2, reference.noise_variance_ / reference.explained_variance_, rtol=0.01
    )
    assert model.explained == pytest.approx(reference.explained_variance_ratio_.sum(), abs=1e-3)


def test_latents_are_the_posterior_mean_of_the_paper() -> None:
    faces = low_rank_faces(500)
    model = ppca.fit(faces, 4)
    pixels, loadings = faces.reshape(500, -1).astype(np.float64), model.loadings.astype(np.float64)
    eigenvalues = np.linalg.eigvalsh(np.cov(pixels, rowvar=False, bias=True))[::-1]
    noise = eigenvalues[4:].mean()
    # Tipping and Bishop 1999, section 3.3: M = W^T W + sigma^2 I, <z> = M^-1 W^T (x - mean)
    expected = np.linalg.solve(loadings @ loadings.T + noise * np.eye(4), loadings @ (pixels - pixels.mean(0)).T).T
    np.testing.assert_allclose(model.latents, expected, atol=0.01)


def test_sampled_faces_vary_as_the_model_says() -> None:
    model = ppca.fit(low_rank_faces(2_000), 5)
    sampled = ppca.sample(model, 20_000, np.random.default_rng(0)).reshape(20_000, -1).astype(np.float64)
    expected = (model.loadings**2).sum(axis=0)
    np.testing.assert_allclose(sampled.mean(axis=0), model.mean.ravel(), atol=0.6)
    np.testing.assert_allclose(sampled.var(axis=0), expected, rtol=0.1)


def test_no_sampled_face_is_a_training_face() -> None:
    faces = low_rank_faces(50)
    sampled = ppca.sample(ppca.fit(faces, 20), 500, np.random.default_rng(0))
    assert not {face.tobytes() for face in sampled} & {face.tobytes() for face in faces}


def test_a_class_of_few_or_equal_faces_still_gives_whole_faces() -> None:
    faces = low_rank_faces(3)
    model = ppca.fit(faces, 64)
    assert model.loadings.shape == (2, 36)
    assert ppca.sample(model, 5, np.random.default_rng(0)).shape == (5, 6, 6, 1)
    same = np.repeat(faces[:1], 4, axis=0)
    assert (ppca.sample(ppca.fit(same, 2), 5, np.random.default_rng(0)) == faces[0]).all()


def test_colour_stays_colour() -> None:
    faces = random_faces(20, size=8, channels=3)
    assert ppca.sample(ppca.fit(faces, 4), 7, np.random.default_rng(0)).shape == (7, 8, 8, 3)


def test_the_file_is_read_back_with_every_class_under_its_own_name(tmp_path: Path) -> None:
    out = tmp_path / "faces.parquet"
    assert run("--data", small_csv(tmp_path / "f.csv"), "--per-class", 6, "--out", out) == 0
    samples = fer_parquet.read(out, Form())
    assert samples.images.shape == (42, 48, 48, 1)
    assert samples.classes == FER2013
    assert np.bincount(samples.labels).tolist() == [6] * 7
    brightness = [samples.images[samples.labels == label].mean() for label in range(7)]
    np.testing.assert_allclose(brightness, 15.5 + 32 * np.arange(7), atol=3)
    assert [path.name for path in tmp_path.glob("*faces*")] == ["faces.parquet"]


def test_the_same_seed_gives_the_same_file_and_another_seed_other_faces(tmp_path: Path) -> None:
    data = small_csv(tmp_path / "f.csv")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run("--data", data, "--per-class", 3, "--seed", seed, "--out", tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    first, other = (fer_parquet.read(tmp_path / name, Form()).images for name in "ac")
    assert not {face.tobytes() for face in first} & {face.tobytes() for face in other}


def test_validation_and_test_faces_have_no_influence(tmp_path: Path) -> None:
    images = []
    for seed in (0, 1):
        run("--data", small_csv(tmp_path / f"{seed}.csv", seed), "--per-class", 4, "--out", tmp_path / "out.parquet")
        images.append(fer_parquet.read(tmp_path / "out.parquet", Form()).images)
    np.testing.assert_array_equal(*images)


def test_a_validation_part_carved_for_another_test_split_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [csv_row(i % 7, image, "Training") for i, image in enumerate(random_faces(140))]
    rows += [csv_row(i, image, "PublicTest") for i, image in enumerate(random_faces(7, 1))]
    data = write_csv(tmp_path / "f.csv", rows)
    run("--data", data, "--per-class", 1, "--test-split", "public", "--out", tmp_path / "out.parquet")
    assert "119 training faces" in capsys.readouterr().err  # 85 % of 140


def test_faces_of_fer2013_keep_its_classes_apart(tmp_path: Path) -> None:
    source = SHARED_DATA / "fer2013.parquet"
    if not source.exists():
        pytest.skip("needs ../shared/data/fer2013.parquet")
    real = open_dataset(str(source))
    means = {}
    for name in ("happy", "surprise"):
        faces = real.images[real.in_split("train")][real.labels[real.in_split("train")] == FER2013.index(name)][:800]
        means[name] = (faces.mean(0), ppca.sample(ppca.fit(faces, 16), 400, np.random.default_rng(0)).mean(0))
    real_difference, made_difference = (means["happy"][i] - means["surprise"][i] for i in (0, 1))
    assert np.corrcoef(real_difference.ravel(), made_difference.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"--per-class": 0}, r"--per-class: got '0', expected a whole number at least 1"),
        ({"--per-class": "many"}, r"--per-class: got 'many', expected a whole number"),
        ({"--components": 0}, r"--components: got '0'"),
        ({"--seed": -1}, r"--seed: got '-1'"),
        ({"--data": "f.cvs"}, r"no data at f\.cvs; did you mean 'f\.csv'\?"),
        ({"--out": "nowhere/out.parquet"}, r"there is no folder nowhere"),
        ({"--out": "."}, r"--out \. is a folder; name a file in it"),
        ({"--test-split": "privat"}, r"--test-split: got 'privat'; did you mean 'private'\?"),
        ({"--per-clas": 3}, r"unknown flag --per-clas; did you mean '--per-class'\?"),
    ],
)
def test_a_wrong_flag_is_named_with_what_was_expected(
    flags: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small_csv(Path("f.csv"))
    given = {"--data": "f.csv", "--per-class": 1, "--out": "out.parquet", **flags}
    with pytest.raises(UserError, match=message):
        run(*(f"{flag}={value}" for flag, value in given.items()))
    assert not Path("out.parquet").exists()


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="'ppca'"):
        synthesize.command(["pca"])


def test_a_class_with_a_single_training_face_is_named(tmp_path: Path) -> None:
    labels = [*range(7), *range(6)]
    rows = [csv_row(label, image, "Training") for label, image in zip(labels, random_faces(13), strict=True)]
    rows += [csv_row(0, image, usage) for image, usage in zip(random_faces(2, 1), USAGES[-2:], strict=True)]
    with pytest.raises(UserError, match="1 training face of 'neutral', expected at least 2"):
        run("--data", write_csv(tmp_path / "f.csv", rows), "--per-class", 1, "--out", tmp_path / "out.parquet")
