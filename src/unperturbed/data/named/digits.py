"""8x8 grey digits, 10 classes, 1,797 examples (embedded, scikit-learn)"""

import numpy as np

from unperturbed.data.split import Data, array_split, hold_out, select

_HELD_OUT = 0.2
THREAT = "Linf:0.1"


def load() -> Data:
    """Return 1,797 digits, 8x8 in [0, 1] (their 17 grey levels over 16), the same 20% of every class as test split.

    Alpaydin & Kaynak (1998), https://doi.org/10.24432/C50P49.
    """
    from sklearn import datasets

    pixels, labels = datasets.load_digits(return_X_y=True)
    examples = array_split((pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels)
    train, test = hold_out(examples.labels, _HELD_OUT)
    return Data("digits", select(examples, train), select(examples, test), tuple("0123456789"))
