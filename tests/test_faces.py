"""Faces are found, brought to their place and judged, the same way everywhere."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
from faces import SHARED_DATA, needs_detector, random_faces
from PIL import Image

from fer_ray.data.readers import rendered
from fer_ray.faces.align import TEMPLATE, align, align_image, similarity
from fer_ray.faces.detect import LANDMARKS, Face, detect
from fer_ray.faces.quality import REASONS, Judgement, Limits, judge, measure

pytestmark = needs_detector
GRIDS = SHARED_DATA / "grids"
needs_sheets = pytest.mark.skipif(not GRIDS.is_dir(), reason="no ../shared/data/grids beside the project")

CELL = 200


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """uint8 [h, w, 3]: the first twelve good cells of a sheet."""
    sheet = np.asarray(Image.open(GRIDS / "sheet_01.jpg").convert("RGB"))
    truth = json.loads((GRIDS / "sheet_01.json").read_bytes())
    edges = truth["boundaries"]
    good = [cell for cell in truth["cells"] if cell["accept"]][:12]
    places = [(slice(*edges[c["row"] : c["row"] + 2]), slice(*edges[c["col"] : c["col"] + 2])) for c in good]
    return [sheet[place] for place in places]


def face_with(box: tuple[float, float, float, float]) -> Face:
    x0, y0, x1, y1 = box
    return Face(box, 0.9, np.float32(TEMPLATE * (x1 - x0, y1 - y0) + (x0, y0)))


def textured(mean: float = 120, spread: float = 40) -> np.ndarray:
    """uint8 [CELL, CELL, 3]: blocks of 4 pixels, sharp and of medium exposure."""
    blocks = np.random.default_rng(0).normal(mean, spread, (CELL // 4, CELL // 4))
    grey = np.kron(np.clip(blocks, 0, 255), np.ones((4, 4))).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


CENTRED = face_with((50, 40, 150, 160))


# detect


@needs_sheets
def test_landmarks_come_in_the_order_that_is_documented(photos: list[np.ndarray]) -> None:
    for photo in photos:
        point = dict(zip(LANDMARKS, detect(photo)[0].landmarks, strict=True))
        assert point["left eye"][0] < point["right eye"][0]
        assert point["left mouth corner"][0] < point["right mouth corner"][0]
        assert max(point["left eye"][1], point["right eye"][1]) < point["nose"][1]
        assert point["nose"][1] < min(point["left mouth corner"][1], point["right mouth corner"][1])


@needs_sheets
@pytest.mark.parametrize("factor", [0.3, 2.0, 5.0])
def test_boxes_and_landmarks_scale_with_the_image(photos: list[np.ndarray], factor: float) -> None:
    photo = photos[0]
    before = detect(photo)[0]
    side = round(photo.shape[0] * factor), round(photo.shape[1] * factor)
    after = detect(cv2.resize(photo, side[::-1], interpolation=cv2.INTER_AREA))[0]
    tolerance = 0.1 * before.width
    np.testing.assert_allclose(np.array(after.box) / factor, before.box, atol=tolerance)
    np.testing.assert_allclose(after.landmarks / factor, before.landmarks, atol=tolerance)


@needs_sheets
def test_a_face_at_the_edge_keeps_its_landmarks_where_the_face_is(photos: list[np.ndarray]) -> None:
    """The box reaches outside; upstream's code cuts it first and shifts the landmarks with it."""
    photo = photos[0]
    whole = detect(photo)[0]
    cut = round(whole.box[0] + 0.12 * whole.width)
    partly = detect(np.ascontiguousarray(photo[:, cut:]))[0]
    assert partly.box[0] < 0
    np.testing.assert_allclose(partly.landmarks + np.array([cut, 0]), whole.landmarks, atol=0.05 * whole.width)


@needs_sheets
def test_the_largest_face_comes_first(photos: list[np.ndarray]) -> None:
    scene = np.full((400, 600, 3), 128, np.uint8)
    scene[20:120, 20:120] = cv2.resize(photos[0], (100, 100), interpolation=cv2.INTER_AREA)
    scene[100:350, 300:550] = cv2.resize(photos[1], (250, 250))
    first, second = detect(scene)
    assert first.box[0] > 300
    assert second.box[2] < 120
    assert first.width > second.width


@needs_sheets
def test_every_thread_and_every_time_gives_the_same_faces(photos: list[np.ndarray]) -> None:
    expected = [detect(photo)[0] for photo in photos]
    with ThreadPoolExecutor(4) as pool:
        again = [faces[0] for faces in pool.map(detect, photos)]
    for one, other in zip(expected, again, strict=True):
        assert one.box == other.box
        np.testing.assert_array_equal(one.landmarks, other.landmarks)


@needs_sheets
def test_grey_images_are_grey_colour_images(photos: list[np.ndarray]) -> None:
    grey = cv2.cvtColor(photos[0], cv2.COLOR_RGB2GRAY)[..., None]
    assert detect(grey)[0].box == detect(np.repeat(grey, 3, axis=2))[0].box


@pytest.mark.parametrize("shape", [(1, 1, 1), (48, 48, 1), (3, 2000, 3), (2000, 3, 1), (33, 31, 3)])
def test_images_without_a_face_give_none_whatever_their_shape(shape: tuple[int, int, int]) -> None:
    assert detect(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)) == []
    aligned, found = align_image(np.full(shape, 7, np.uint8), 48)
    assert not found
    assert aligned.shape == (48, 48, shape[2])
    assert (aligned == 7).all()


# align


def test_the_transform_is_the_least_squares_solution() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        points, targets = rng.normal(size=(2, 5, 2)) * 50
        # Unknowns a, b, s, t of x' = ax - by + s, y' = bx + ay + t.
        rows_x = np.column_stack([points[:, 0], -points[:, 1], np.ones(5), np.zeros(5)])
        rows_y = np.column_stack([points[:, 1], points[:, 0], np.zeros(5), np.ones(5)])
        a, b, s, t = np.linalg.lstsq(np.vstack([rows_x, rows_y]), targets.T.ravel(), rcond=None)[0]
        np.testing.assert_allclose(similarity(points, targets), [[a, -b, s], [b, a, t]], atol=1e-9)


@pytest.mark.parametrize("degrees", [-40, 0, 25])
@pytest.mark.parametrize("face_side", [20, 90, 700])
def test_what_lies_on_the_landmarks_lands_on_the_template(degrees: float, face_side: float) -> None:
    """Dots drawn where the landmarks are, at any size and turn, are found at the template's places."""
    size, side = 96, round(face_side * 2.2)
    turn = np.exp(1j * np.radians(degrees))
    offset = (TEMPLATE - 0.5) @ (1, 1j) * turn * face_side
    landmarks = np.column_stack([offset.real, offset.imag]) + side / 2
    ys, xs = np.mgrid[:side, :side] + 0.5
    distance = np.sqrt(((np.stack([xs, ys], -1)[None] - landmarks[:, None, None]) ** 2).sum(-1)) / face_side
    image = (255 * np.exp(-((distance.min(0) / 0.03) ** 2))).astype(np.uint8)[..., None]
    aligned = align(image, Face((0, 0, 1, 1), 1.0, landmarks.astype(np.float32)), size)
    assert aligned.shape == (size, size, 1)
    ys, xs = np.mgrid[:size, :size] + 0.5
    for x, y in TEMPLATE * size:
        near = np.hypot(xs - x, ys - y) < 0.09 * size
        weights = aligned[..., 0] * near
        centre = np.array([(weights * xs).sum(), (weights * ys).sum()]) / weights.sum()
        np.testing.assert_allclose(centre, (x, y), atol=0.35 if face_side > 20 else 0.8)


@pytest.mark.parametrize("period", [2, 3, 5])
def test_fine_stripes_average_out_where_a_face_is_shrunk(period: int) -> None:
    side = 640
    stripes = np.where(np.arange(side) % period < period / 2, 255, 0).astype(np.uint8)
    image = np.broadcast_to(stripes, (side, side))[..., None].copy()
    aligned = align(image, Face((0, 0, side, side), 1.0, np.float32(TEMPLATE * side)), 64)
    assert aligned.std() < 0.1 * stripes.std()
    assert abs(aligned.mean() - stripes.mean()) < 2


def test_a_face_already_in_place_is_not_changed() -> None:
    image = random_faces(1, channels=3)[0]
    face = Face((0, 0, 48, 48), 1.0, TEMPLATE * 48)
    assert np.abs(align(image, face, 48).astype(int) - image).max() <= 1


def test_beyond_the_edge_the_edge_is_repeated() -> None:
    image = np.full((60, 60, 3), 200, np.uint8)
    assert (align(image, face_with((-30, -30, 90, 90)), 64) == 200).all()


@needs_sheets
def test_an_aligned_face_is_found_in_its_place(photos: list[np.ndarray]) -> None:
    aligned = [align_image(photo, 160) for photo in photos]
    assert all(found for _, found in aligned)
    landmarks = [faces[0].landmarks / 160 for image, _ in aligned if (faces := detect(image))]
    assert len(landmarks) >= 10
    assert np.abs(np.median(landmarks, axis=0) - TEMPLATE).max() < 0.04


def test_without_a_face_the_central_square_is_taken() -> None:
    image = np.zeros((40, 100, 1), np.uint8)
    image[:, 30:70] = 250
    aligned, found = align_image(image, 20)
    assert not found
    assert (aligned[:, 1:-1] >= 249).all()


def test_rendered_faces_of_the_demo_are_taken() -> None:
    images = rendered.read("real").images[:40]
    for image in images:
        aligned, _ = align_image(image, 48)
        assert aligned.shape == (48, 48, images.shape[3])


# quality


def test_a_sharp_centred_face_is_kept() -> None:
    judgement = judge(textured(), [CENTRED], Limits())
    assert judgement.reason is None
    assert judgement.face is CENTRED


def test_measures_have_their_documented_units() -> None:
    cell = np.zeros((100, 200, 1), np.uint8)
    cell[:, 100:] = 255
    measures = measure(cell, face_with((60, -20, 140, 60)))
    assert measures.face == pytest.approx(0.8)
    assert measures.offset == pytest.approx(0.3)  # across 0, down (50 - 20) / 100
    assert measures.inside == pytest.approx(0.75)
    assert measures.brightness == pytest.approx(127.5, abs=3)
    assert measures.dark == measures.bright == pytest.approx(0.5, abs=0.02)
    assert measures.contrast == pytest.approx(127.5, abs=2)


def test_sharpness_is_the_variance_of_the_laplacian_at_64_pixels() -> None:
    cell = random_faces(1, size=64)[0]
    padded = np.pad(cell[..., 0].astype(np.float64), 1, mode="reflect")
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * padded[1:-1, 1:-1]
    assert measure(cell, face_with((0, 0, 64, 64))).sharpness == pytest.approx(laplacian.var())


def test_sharpness_hardly_depends_on_the_resolution_of_the_sheet() -> None:
    small = textured()
    large = cv2.resize(small, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    scaled = face_with(tuple(4 * value for value in CENTRED.box))
    assert measure(large, scaled).sharpness == pytest.approx(measure(small, CENTRED).sharpness, rel=0.3)


blurred = cv2.GaussianBlur(textured(), (0, 0), 8)


@pytest.mark.parametrize(
    ("reason", "cell", "faces"),
    [
        ("no face", textured(), []),
        ("several faces", textured(), [face_with((10, 50, 100, 150)), face_with((110, 60, 190, 140))]),
        ("face too small", textured(), [face_with((80, 75, 120, 125))]),
        ("face off centre", textured(), [face_with((100, 50, 195, 150))]),
        ("face cut off", textured(), [face_with((50, -35, 150, 150))]),
        ("blurred", blurred, [CENTRED]),
        ("too dark", textured(10), [CENTRED]),
        ("too bright", textured(250), [CENTRED]),
        ("low contrast", textured(120, 5), [CENTRED]),
    ],
)
def test_each_fault_has_its_reason(reason: str, cell: np.ndarray, faces: list[Face]) -> None:
    assert reason in REASONS
    assert judge(cell, faces, Limits(min_sharpness=40 if reason == "blurred" else 0)).reason == reason


def test_a_small_bystander_does_no_harm() -> None:
    bystander = face_with((155, 5, 195, 50))
    assert judge(textured(), [CENTRED, bystander], Limits()).reason is None
    assert judge(textured(), [CENTRED, bystander], Limits(rival=0.3)).reason == "several faces"


def test_each_limit_can_be_lifted() -> None:
    small = face_with((80, 75, 120, 125))
    assert judge(textured(), [small], replace(Limits(), min_face=0.2)).reason is None
    assert judge(blurred, [CENTRED], Limits(min_sharpness=0, min_contrast=0)).reason is None


def test_without_a_face_nothing_is_measured() -> None:
    assert judge(textured(), [], Limits()) == Judgement("no face", None, None)


def test_a_box_outside_the_cell_is_judged_not_a_crash() -> None:
    assert judge(textured(), [face_with((300, 300, 420, 420))], Limits()).reason == "face off centre"
