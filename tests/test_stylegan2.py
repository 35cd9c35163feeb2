"""Our generator makes the official images, and `python -m fer_ray.synthesize stylegan2` makes them into a data set."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from faces import SHARED_DATA
from PIL import Image
from scipy.signal import upfirdn
from torch.nn import functional

from fer_ray.errors import UserError
from fer_ray.labels import FER2013
from fer_ray.synthesis import stylegan2
from fer_ray.synthesis.parts import Parts
from fer_ray.synthesis.safe_pickle import PersistentObject
from fer_ray.synthesis.stylegan2 import Generator, draw, load_generator
from fer_ray.synthesis.stylegan2_layers import Shape, modulated_conv, upsample
from fer_ray.synthesize import __main__ as synthesize

SNAPSHOTS = SHARED_DATA / "stylegan2"
GOLDEN = sorted(SNAPSHOTS.glob("*.npz"))
needs_snapshots = pytest.mark.skipif(not SNAPSHOTS.is_dir(), reason="needs ../shared/data/stylegan2")
FILTER = torch.outer(torch.tensor([1.0, 3.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64


def random_tensor(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def tiny_generator(architecture: str = "skip", c_dim: int = 0) -> Generator:
    shape = Shape(8, c_dim, 8, 16, 1, 8, (8, 8), (6, 5, 4), architecture, 1, 256)
    generator = Generator(shape)
    for index, tensor in enumerate(generator.state_dict().values()):
        tensor.copy_(random_tensor(*tensor.shape, seed=index) / 3)
    return generator.requires_grad_(False)


def resampled(image: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """scipy's upfirdn by 2 along both axes; the first tap falls one pixel before the image."""
    for axis in (0, 1):
        image = upfirdn(2 * taps, image, up=2, axis=axis)
        image = np.take(image, range(1, image.shape[axis] - 1), axis=axis)
    return image


@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 2, 4, 1)])  # the second is not symmetric
def test_doubling_is_that_of_scipy(taps: tuple[int, ...]) -> None:
    weights = np.array(taps) / sum(taps)
    x = random_tensor(2, 3, 5, 5)
    found = upsample(x, torch.from_numpy(np.outer(weights, weights)).float())
    expected = np.stack([[resampled(channel.numpy().astype(float), weights) for channel in image] for image in x])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("up", [False, True])
def test_modulation_is_that_of_the_paper_image_by_image(up: bool) -> None:
    x, weight, styles = random_tensor(3, 4, 6, 6), random_tensor(5, 4, 3, 3, seed=1), random_tensor(3, 4, seed=2)
    found = modulated_conv(x, weight, styles, FILTER if up else None)
    for image, style, output in zip(x, styles, found, strict=True):
        modulated = weight * style[None, :, None, None]
        modulated = modulated / (modulated.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:  # zeros between the pixels, a true convolution, the filter
            spread = torch.zeros(4, 12, 12)
            spread[:, ::2, ::2] = image
            wide = functional.conv2d(functional.pad(spread[None], (2, 1, 2, 1)), modulated.flip(2, 3), padding=1)
            expected = functional.conv2d(wide[0][:, None], 4 * FILTER[None, None])[:, 0]
        else:
            expected = functional.conv2d(image[None], modulated, padding=1)[0]
        torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
def test_every_architecture_makes_images_that_depend_on_all_its_styles(architecture: str) -> None:
    generator = tiny_generator(architecture)
    ws = random_tensor(2, generator.num_ws, 8)
    image = generator.synthesis(ws, "none")
    assert image.shape == (2, 1, 16, 16)
    for index in range(generator.num_ws):
        changed = ws.clone()
        changed[:, index] += 1
        assert not torch.equal(generator.synthesis(changed, "none"), image)


def test_truncation_draws_style_vectors_to_the_mean() -> None:
    generator = tiny_generator()
    z, c = random_tensor(2, 8), torch.zeros(2, 0)
    full, mean = generator.mapping(z, c, 1.0, None), generator.mapping.w_avg
    torch.testing.assert_close(generator.mapping(z, c, 0.3, None), mean + 0.3 * (full - mean))
    cut = generator.mapping(z, c, 0.0, 2)
    torch.testing.assert_close(cut[:, :2], mean.expand(2, 2, 8))
    torch.testing.assert_close(cut[:, 2:], full[:, 2:])


@pytest.mark.parametrize("noise", stylegan2.NOISE_MODES)
def test_a_face_depends_on_seed_class_and_number_and_not_on_its_batch(noise: str) -> None:
    generator = tiny_generator(c_dim=2)

    def faces(numbers: list[int], name: str = "happy", seed: int = 0) -> np.ndarray:
        return draw(generator, numbers, name=name, label=1, seed=seed, psi=0.7, noise=noise).astype(int)

    together = faces([0, 1, 2])
    alone = np.concatenate([faces([number]) for number in (0, 1, 2)])
    assert np.abs(together - alone).max() <= 1  # another batch size rounds otherwise
    assert np.abs(together[0] - together[1]).max() > 1
    assert np.abs(together - faces([0, 1, 2], name="sad")).max() > 1
    assert np.abs(together - faces([0, 1, 2], seed=1)).max() > 1


def test_random_noise_is_other_than_the_stored_noise() -> None:
    generator = tiny_generator()
    drawn = [
        draw(generator, [0], name="sad", label=None, seed=0, psi=1, noise=noise).astype(int)
        for noise in stylegan2.NOISE_MODES
    ]
    assert np.abs(drawn[0] - drawn[1]).max() > 1
    assert np.abs(drawn[0] - drawn[2]).max() > 1


@needs_snapshots
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_images_and_style_vectors_are_the_official_ones(path: Path) -> None:
    golden = np.load(path)
    generator = load_generator(path.with_suffix(".pkl"))
    z, c = torch.from_numpy(golden["z"]), torch.from_numpy(golden["c"])
    keys = [key for key in golden.files if key.startswith("psi")]
    assert keys
    for key in keys:
        psi, noise = key.removeprefix("psi").split("_")
        made = generator(z, c, psi=float(psi), noise=noise).numpy()
        assert np.abs(made - golden[key]).max() <= 1e-5 * np.ptp(golden[key]), key
    np.testing.assert_allclose(generator.mapping(z, c, 1.0, None), golden["w_psi1"], atol=1e-5)


def altered(monkeypatch: pytest.MonkeyPatch, alter) -> str:
    """The message that refuses a snapshot whose G_ema was altered."""
    path = SNAPSHOTS / "resnet_32.pkl"
    snapshot = stylegan2.safe_pickle.read(path)
    alter(snapshot["G_ema"])
    with monkeypatch.context() as patch:
        patch.setattr(stylegan2.safe_pickle, "read", lambda _: snapshot)
        with pytest.raises(UserError) as error:
            load_generator(path)
    assert path.name in str(error.value)
    return str(error.value)


def block(network: PersistentObject, name: str) -> PersistentObject:
    return network.state["_modules"]["synthesis"].state["_modules"][name]


@needs_snapshots
def test_a_generator_that_is_not_whole_is_refused_by_the_name_of_what_is_wrong(monkeypatch) -> None:
    def conv1(network: PersistentObject) -> dict:
        return block(network, "b8").state["_modules"]["conv1"].state

    name = "synthesis.b8.conv1.weight"
    assert name in altered(monkeypatch, lambda network: conv1(network)["_parameters"].pop("weight"))
    assert name in altered(monkeypatch, lambda network: conv1(network)["_parameters"].update(weight=np.zeros((3, 3))))
    assert name in altered(
        monkeypatch, lambda network: conv1(network)["_parameters"].update(weight=np.full((32, 32, 3, 3), np.nan))
    )
    assert "other" in altered(monkeypatch, lambda network: conv1(network)["_buffers"].update(other=np.zeros(3)))
    assert "resolution" in altered(monkeypatch, lambda network: network.state.update(img_resolution=48))
    assert "swish" in altered(monkeypatch, lambda network: conv1(network).update(activation="swish"))
    assert "num_ws" in altered(monkeypatch, lambda network: network.state.update(num_ws=2**40))
    assert "z_dim" in altered(monkeypatch, lambda network: network.state.update(z_dim=2**40))
    assert "more than" in altered(
        monkeypatch, lambda network: block(network, "b8").state["_modules"].update(me=network)
    )
    assert "b16" in altered(
        monkeypatch, lambda network: network.state["_modules"]["synthesis"].state["_modules"].pop("b16")
    )


def run(*arguments: object) -> int:
    return synthesize.command(["stylegan2", *map(str, arguments)])


def written(path: Path) -> tuple[list[str], np.ndarray]:
    """The class of each face, and uint8 [n, H, W] or [n, H, W, 3]."""
    table = pq.read_table(path)
    names = table.schema.metadata[b"label_names"].decode().split(",")
    images = [np.asarray(Image.open(io.BytesIO(data))) for data in table["image"].to_pylist()]
    return [names[label] for label in table["label"].to_pylist()], np.stack(images)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


GREY = SNAPSHOTS / "grey_c7_32.pkl"
SMALL = ("--per-class", 5, "--batch-size", 2, "--device", "cpu")


@needs_snapshots
def test_a_conditional_snapshot_becomes_a_data_set_of_its_classes(tmp_path: Path, capsys) -> None:
    out = tmp_path / "faces.parquet"
    assert run("--network", GREY, "--classes", ",".join(FER2013), *SMALL, "--out", out) == 0
    assert f"35 faces written to {out}" in capsys.readouterr().out
    names, images = written(out)
    assert names == [name for name in FER2013 for _ in range(5)]
    assert images.shape == (35, 32, 32)
    generator = load_generator(GREY)
    expected = draw(generator, [2, 3], name="happy", label=3, seed=0, psi=0.7, noise="const")
    np.testing.assert_array_equal(images[17:19], expected[..., 0])
    source = pq.read_schema(out).metadata[b"source"].decode()
    assert digest(GREY) in source
    assert "psi 0.7" in source
    assert [path.name for path in tmp_path.iterdir()] == ["faces.parquet"]
    before = out.stat().st_mtime_ns
    assert run("--network", GREY, "--classes", ",".join(FER2013), *SMALL, "--out", out) == 0
    assert "already made" in capsys.readouterr().err
    assert out.stat().st_mtime_ns == before


@needs_snapshots
def test_a_snapshot_per_class_by_flags_or_by_yaml_gives_the_same_faces(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    for name in ("a.pkl", "b.pkl"):
        (tmp_path / "nets" / name).symlink_to(SNAPSHOTS / "resnet_32.pkl")
    (tmp_path / "nets" / "classes.yaml").write_text("# my networks\nanger: a.pkl\nhappiness: b.pkl\n")
    flags = ("--network", f"anger={tmp_path}/nets/a.pkl", "--network", f"happy={tmp_path}/nets/b.pkl")
    assert run(*flags, *SMALL, "--out", tmp_path / "flags.parquet") == 0
    assert run("--networks", tmp_path / "nets" / "classes.yaml", *SMALL, "--out", tmp_path / "yaml.parquet") == 0
    assert digest(tmp_path / "flags.parquet") == digest(tmp_path / "yaml.parquet")
    names, images = written(tmp_path / "yaml.parquet")
    assert names == ["angry"] * 5 + ["happy"] * 5
    assert not np.array_equal(images[0], images[5])


@needs_snapshots
def test_an_interrupted_run_goes_on_and_ends_with_the_same_file(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole.parquet", tmp_path / "broken.parquet"
    flags = ("--network", f"anger={SNAPSHOTS / 'resnet_32.pkl'}", *SMALL)
    assert run(*flags, "--out", whole) == 0
    calls = []

    def interrupted(*arguments, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(arguments[1])
        return draw(*arguments, **options)

    monkeypatch.setattr(stylegan2, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(*flags, "--out", broken)
    assert "the same command goes on" in capsys.readouterr().err
    assert not broken.exists()
    parts = sorted((tmp_path / ".broken.parquet.parts").glob("*.part"))
    assert len(parts) == 2
    parts[0].write_bytes(parts[0].read_bytes()[:-1] + b"\x00\x01")
    drawn = []
    monkeypatch.setattr(stylegan2, "draw", lambda *a, **k: drawn.append(list(a[1])) or draw(*a, **k))
    assert run(*flags, "--out", broken) == 0
    assert drawn == [[0, 1], [4]]  # the damaged part and the missing one
    assert digest(broken) == digest(whole)
    assert not (tmp_path / ".broken.parquet.parts").exists()


def test_parts_of_other_settings_are_discarded(tmp_path: Path) -> None:
    faces = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    Parts(tmp_path / "parts", {"seed": 0}).put("a", faces)
    same = Parts(tmp_path / "parts", {"seed": 0})
    np.testing.assert_array_equal(same.get("a", faces.shape), faces)
    other = Parts(tmp_path / "parts", {"seed": 1})
    assert other.discarded == 1
    assert other.get("a", faces.shape) is None


@needs_snapshots
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--network", GREY], "--classes angry,disgust"),
        (["--network", GREY, "--classes", "happy,sad"], "got 2 names"),
        (["--network", GREY, "--classes", "happy,happiness,a,b,c,d,e"], "6 of them different"),
        (["--network", f"happy={GREY}"], "is conditional"),
        (["--network", SNAPSHOTS / "resnet_32.pkl"], "is not conditional"),
        (["--network", f"joy={GREY}", "--network", f"happy={GREY}"], "given twice"),
        (["--network", GREY, "--network", f"happy={GREY}"], "has no class"),
        (["--network", f"a,b={GREY}"], "not the name of a class"),
        (["--network", f"happy={GREY}", "--classes", "happy"], "each snapshot has its class"),
        (
            ["--network", f"sad={SNAPSHOTS / 'resnet_32.pkl'}", "--network", f"fear={SNAPSHOTS}/unconditional_64.pkl"],
            "64 pixels",
        ),
        (["--network", "happy=none.pkl"], "none.pkl"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_give(flags: list, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        run(*flags, "--per-class", 2, "--out", tmp_path / "faces.parquet")
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "- a.pkl", "happy: [a.pkl]", "happy: {a: b}", "{", "a: &x\n  b: *x", "[" * 5_000, "a\x00b", "happy"]
)
def test_yaml_that_is_no_list_of_networks_is_refused_with_its_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"classes\.yaml.*expected a line"):
        run("--networks", path, "--per-class", 2, "--out", tmp_path / "faces.parquet")


def test_a_class_named_twice_in_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text("happy: a.pkl\nHappy: b.pkl\n")
    with pytest.raises(UserError, match="given twice"):
        run("--networks", path, "--per-class", 2, "--out", tmp_path / "faces.parquet")
