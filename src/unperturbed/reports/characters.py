"""Text of foreign files, such as the names of classes, without characters that control a terminal or a page."""

import unicodedata


def printable(text: str) -> str:
    """Return text with control characters escaped, since those of a foreign file could control the terminal.

    Bytes of a name that are no text in UTF-8 are escaped as well, and so are signs that change the direction of text.
    """
    return "".join(
        repr(character)[1:-1]
        if unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in "\n\t"
        else character
        for character in text
    )
