import pytest
import torch

from unperturbed.data.augment import AUGMENTATIONS, augmentation, crop, flip, none
from unperturbed.errors import InputError
from unperturbed.noise import Noise

IDS = torch.arange(64)
IMAGES = torch.rand(64, 3, 9, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_example_does_not_depend_on_its_batch(name: str) -> None:
    whole = augmentation(name)(IMAGES, Noise.of(1, IDS))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(augmentation(name)(IMAGES[order], Noise.of(1, order)), whole[order])
    assert torch.equal(augmentation(name)(IMAGES[5:6], Noise.of(1, IDS[5:6])), whole[5:6])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_inputs_keep_their_shape_their_values_and_the_callers_tensor(name: str) -> None:
    before = IMAGES.clone()
    after = augmentation(name)(IMAGES, Noise.of(2, IDS))
    assert after.shape == IMAGES.shape and torch.equal(IMAGES, before)
    for x, z in zip(IMAGES, after, strict=True):
        assert bool(torch.isin(z, x).all())


@pytest.mark.parametrize("name", sorted(set(AUGMENTATIONS) - {"none"}))
def test_another_draw_gives_another_result(name: str) -> None:
    noise = Noise.of(3, IDS)
    assert not torch.equal(augmentation(name)(IMAGES, noise.fold(0)), augmentation(name)(IMAGES, noise.fold(1)))


def test_none_changes_nothing() -> None:
    assert none(IMAGES, Noise.of(0, IDS)) is IMAGES


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    x = IMAGES[:1].expand(2000, -1, -1, -1)
    z = flip(x, Noise.of(0, torch.arange(2000)))
    mirrored = (z == x.flip(-1)).flatten(1).all(1)
    assert torch.equal(mirrored, ~(z == x).flatten(1).all(1))
    assert 900 < int(mirrored.sum()) < 1100


def test_a_crop_is_one_of_81_windows_of_the_reflected_image_all_as_likely() -> None:
    padded = torch.nn.functional.pad(IMAGES[:1], (4, 4, 4, 4), mode="reflect")[0]
    windows = torch.stack([padded[:, i : i + 9, j : j + 7] for i in range(9) for j in range(9)])
    z = crop(IMAGES[:1].expand(4050, -1, -1, -1), Noise.of(0, torch.arange(4050)))
    matches = torch.cdist(z.flatten(1), windows.flatten(1), compute_mode="donot_use_mm_for_euclid_dist") == 0
    assert bool((matches.sum(1) == 1).all())
    assert 20 < int(matches.sum(0).min()) and int(matches.sum(0).max()) < 90  # 50 expected


@pytest.mark.parametrize("size", [1, 2, 3])
def test_images_smaller_than_the_shift_are_cropped_too(size: int) -> None:
    x = torch.rand(20, 1, size, size)
    assert bool(torch.isin(crop(x, Noise.of(0, torch.arange(20))), x).all())


@pytest.mark.parametrize("name", ["flip", "crop", "flip-crop"])
def test_vectors_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"shape \(5,\)"):
        augmentation(name)(torch.ones(2, 5), Noise.of(0, torch.arange(2)))


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean 'flip-crop'"):
        augmentation("flipcrop")
