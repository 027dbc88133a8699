"""Grids of images in the model card: tables of files, each written once."""

import io
import re

import numpy as np
from PIL import Image

from unperturbed.reports.card import card_images, card_of
from unperturbed.reports.document import Document, Part, Picture, Pictures, Section

HOSTILE = "<img src=x> | [a](b)"


def png(side: int, shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side), shade).save(file, "PNG")
    return file.getvalue()


def document(*pictures: Picture | None) -> Document:
    grid = Pictures("Maps", ("image", HOSTILE), ((HOSTILE, pictures),), "About them.")
    return Document("t", (), (Section("s", (Part("", (grid,)),)),))


def test_the_card_shows_every_image_of_a_grid_under_its_names() -> None:
    same = png(4, 100)
    content = document(Picture(same, HOSTILE), Picture(png(4, 200), "b"), None, Picture(same, "c"))
    files, card = card_images(content), card_of(content, "card-images")
    assert len(files) == 2, "equal images share a file"
    assert {*re.findall(r"\(card-images/(.*?)\)", card)} == {*files}
    (row,) = [line for line in card.splitlines() if "card-images" in line]
    unescaped = re.sub(r"\\.", "", row)
    assert unescaped.count("|") == 6 and "<img" not in card and unescaped.count("![") == 3
    assert "About them." in card
    for name, content_of_file in files.items():
        with Image.open(io.BytesIO(content_of_file)) as image:
            assert image.size == (72, 72) and len(np.unique(np.asarray(image))) == 1, name


def test_without_a_folder_the_card_names_the_grid() -> None:
    card = card_of(document(Picture(png(4, 100), "a")))
    assert "1 rows of images are on the page" in card and "![" not in card


def test_images_that_are_large_damaged_or_of_false_size_are_kept_as_they_are() -> None:
    large, damaged = png(100, 1), png(4, 100)[:-20]
    false = bytearray(png(4, 100))
    false[20:24] = (10**9).to_bytes(4)
    for content in (large, damaged, bytes(false)):
        assert [*card_images(document(Picture(content, "a"))).values()] == [content]
