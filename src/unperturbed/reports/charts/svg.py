"""What the pictures share: colours for light and dark pages alike, and text as SVG can hold it."""

from html import escape

INK, FAINT = "#78818c", "#8b949e"
"""Legible on white and on black alike, since the page's colour is not known here."""
COLOURS = ("#3f6fb5", "#d9743f", "#3a9c79", "#a05fb0", "#b08a2e")
"""Of lines and points, in order; then from the start again."""
FONTS = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, DejaVu Sans, sans-serif"


def opening(width: float, height: float, title: str, attributes: str = "") -> str:
    """Return the start of a picture that stands alone, with the title that screen readers tell."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="{FONTS}" font-size="11" fill="{INK}" {attributes}stroke-linejoin="round">\n'
        f"<title>{plain(title)}</title>\n"
    )


def plain(text: str) -> str:
    """Return the text as XML can hold it."""
    return escape("".join(letter if letter.isprintable() else " " for letter in text))


def size(text: str, largest: float, room: float) -> str:
    """Return the font size at which a text fits into so many pixels, at about 0.7 of the size a letter."""
    return f"{min(largest, room / max(1.0, 0.7 * len(text))):.3g}"
