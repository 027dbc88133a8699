"""Common corruptions against closed forms and statistics, typed again here with the published constants."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from unperturbed.data.corruptions import CORRUPTIONS, LEFT_OUT, SEVERITIES, _enlarging, _moved, _plasma, corrupt
from unperturbed.errors import InputError

RANDOM = ("gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow", "fog")
COLOURS = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
GREY = np.full((4, 32, 32, 3), 128, dtype=np.uint8)
PUBLISHED = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)


def generators(n: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng((seed, k)) for k in range(n)]


def corrupted(images: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    return corrupt(images, name, severity, generators(len(images), seed))


def test_the_names_are_the_published_ones() -> None:
    assert set(CORRUPTIONS) | set(LEFT_OUT) == set(PUBLISHED) and len(CORRUPTIONS) == 14
    assert all(len(corruption.constants) == len(SEVERITIES) for corruption in CORRUPTIONS.values())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_stays_an_image_and_does_not_depend_on_the_others(name: str, channels: int) -> None:
    images = np.ascontiguousarray(COLOURS[..., :channels])
    before = images.copy()
    together = corrupted(images, name, 5)
    assert together.shape == images.shape and together.dtype == np.uint8 and (together != images).any()
    assert (images == before).all()
    assert (corrupt(images[1:2], name, 5, generators(3)[1:2]) == together[1:2]).all()
    if name in RANDOM:
        assert (corrupted(images, name, 5, seed=1) != together).any()
    assert corrupted(np.ascontiguousarray(images[:, :28, :24]), name, 3).shape == (3, 28, 24, channels)


@pytest.mark.parametrize(("severity", "sigma"), [*enumerate((0.04, 0.06, 0.08, 0.09, 0.10), 1)])
def test_gaussian_noise_has_its_deviation(severity: int, sigma: float) -> None:
    noise = corrupted(GREY, "gaussian_noise", severity).astype(float) / 255 - 128 / 255
    assert abs(noise.std() / sigma - 1) < 0.02 and abs(noise.mean() + 0.5 / 255) < 4 * sigma / noise.size**0.5


@pytest.mark.parametrize(("severity", "photons"), [*enumerate((500, 250, 100, 75, 50), 1)])
def test_shot_noise_has_the_variance_of_poisson_s_law(severity: int, photons: int) -> None:
    level = 128 / 255
    noise = corrupted(GREY, "shot_noise", severity).astype(float) / 255
    assert abs(noise.var() / (level / photons) - 1) < 0.06 and abs(noise.mean() - level) < 0.005


@pytest.mark.parametrize(("severity", "share"), [*enumerate((0.01, 0.02, 0.03, 0.05, 0.07), 1)])
def test_impulse_noise_replaces_its_share_by_black_and_white(severity: int, share: float) -> None:
    found = corrupted(GREY, "impulse_noise", severity)
    assert set(np.unique(found)) == {0, 128, 255}
    assert abs((found != 128).mean() - share) < 4 * (share / found.size) ** 0.5
    assert abs((found[found != 128] == 255).mean() - 0.5) < 0.15


def test_brightness_and_contrast_are_those_of_the_paper() -> None:
    x = COLOURS / 255
    value = x.max(axis=3, keepdims=True)
    raised = x * np.minimum(value + 0.3, 1) / value
    np.testing.assert_allclose(corrupted(COLOURS, "brightness", 5) / 255, np.floor(raised * 255 + 1e-9) / 255)
    assert (corrupted(np.zeros((1, 8, 8, 3), np.uint8), "brightness", 5) == int(0.3 * 255)).all()
    mean = x.mean(axis=(1, 2), keepdims=True)
    flat = np.clip((x - mean) * 0.15 + mean, 0, 1)
    np.testing.assert_allclose(corrupted(COLOURS, "contrast", 5) / 255, np.floor(flat * 255 + 1e-9) / 255)


def test_a_defocused_point_is_a_disk() -> None:
    """Radius 1.5 is nine pixels of one ninth each, smoothed by weights that hardly reach a neighbour."""
    point = np.zeros((1, 17, 17, 1), np.uint8)
    point[0, 8, 8] = 255
    disk = corrupted(point, "defocus_blur", 5)[0, :, :, 0]
    assert (disk[7:10, 7:10] == 255 // 9).all() and disk.sum() == 9 * (255 // 9)


def test_zooming_is_that_of_scipy() -> None:
    line = np.random.default_rng(1).random((32, 32))
    for factor in (1.01, 1.1, 1.25, 2.25):
        part = int(np.ceil(32 / factor))
        first = (32 - part) // 2
        zoomed = ndimage.zoom(line[first : first + part, first : first + part], factor, order=1)
        cut = (len(zoomed) - 32) // 2
        ours = _enlarging(32, factor) @ line @ _enlarging(32, factor).T
        np.testing.assert_allclose(ours, zoomed[cut : cut + 32, cut : cut + 32], atol=1e-12)


def test_motion_blur_is_a_mean_along_a_line_from_the_pixel() -> None:
    ramp = np.tile(np.arange(16.0), (16, 1))[..., None]
    steps = np.arange(13)
    weights = np.exp(-(steps**2) / 2) / np.exp(-(steps**2) / 2).sum()
    moved = _moved(ramp, radius=6, sigma=1, angle=0)
    expected = [(weights * np.minimum(column + steps, 15)).sum() for column in range(16)]
    np.testing.assert_allclose(moved[3, :, 0], expected)
    np.testing.assert_allclose(_moved(ramp, 6, 1, 90)[3, :, 0], np.arange(16.0))  # along the equal values


def test_a_plasma_fractal_is_a_height_map() -> None:
    heights = _plasma(generators(5), 32, 3)
    assert heights.shape == (5, 32, 32)
    assert (heights.min(axis=(1, 2)) == 0).all() and (heights.max(axis=(1, 2)) == 1).all()
    rough, smooth = (np.abs(np.diff(_plasma(generators(5), 32, decay), axis=1)).mean() for decay in (1.75, 3))
    assert rough > smooth > 0


def test_glass_blur_copies_pixels_from_above_and_left() -> None:
    """On an image that differs by rows only, a pixel gets the value of its own row or of the one above, or nearly."""
    rows = np.tile((np.arange(32, dtype=np.uint8) * 4)[None, :, None, None], (1, 1, 32, 1))
    found = corrupted(rows, "glass_blur", 1).astype(int)
    shift = rows.astype(int) - found
    assert (shift[:, 2:] >= 0).all() and (shift[:, 2:] <= 4).all() and (shift[:, :2] == 0).all()
    assert 0.4 < (shift[:, 2:, 2:] == 4).mean() < 0.6


def test_an_elastic_transform_without_shifts_is_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    elastic = CORRUPTIONS["elastic_transform"].apply
    np.testing.assert_allclose(elastic(COLOURS / 255, (0, 0, 0), generators(3)), COLOURS / 255, atol=1e-9)


def test_files_and_boxes_are_those_of_pillow() -> None:
    file = BytesIO()
    Image.fromarray(COLOURS[0]).save(file, "JPEG", quality=40)
    assert (corrupted(COLOURS, "jpeg_compression", 5)[0] == np.asarray(Image.open(file))).all()
    box = Image.Resampling.BOX
    small = Image.fromarray(COLOURS[0]).resize((20, 20), box).resize((32, 32), box)  # 0.65 of 32
    assert (corrupted(COLOURS, "pixelate", 5)[0] == np.asarray(small)).all()


@pytest.mark.parametrize(
    ("images", "name", "severity", "message"),
    [
        (COLOURS, "fogg", 1, "no corruption 'fogg'.*'fog'"),
        (COLOURS, "fog", 6, "severity is 6"),
        (COLOURS / 255, "fog", 1, "8-bit images .* float64"),
        (COLOURS[..., :2], "fog", 1, r"shape \(3, 32, 32, 2\)"),
        (COLOURS[:, :4], "fog", 1, "8 pixels at least"),
    ],
)
def test_what_is_no_corruption_or_no_image_is_refused(
    images: np.ndarray, name: str, severity: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        corrupt(images, name, severity, generators(len(images)))
