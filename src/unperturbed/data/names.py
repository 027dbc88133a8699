"""The datasets that go by a short name; literals, so that a listing reads them without importing anything."""

DATASETS: dict[str, str] = {
    "digits": "8x8 grey digits, 10 classes, 1,797 examples (embedded, scikit-learn)",
    "mnist": "28x28 grey digits, 10 classes, 60,000 + 10,000 (Hugging Face: ylecun/mnist)",
    "cifar10": "32x32 colour images, 10 classes, 50,000 + 10,000 (Hugging Face: uoft-cs/cifar10)",
    "cifar100": "32x32 colour images, 100 classes, 50,000 + 10,000 (Hugging Face: uoft-cs/cifar100)",
    "svhn": "32x32 colour house numbers, 10 classes, 73,257 + 26,032 (Hugging Face: ufldl-stanford/svhn)",
}
"""What each name stands for, in one line."""

HUB_SPECS: dict[str, str] = {
    "mnist": "ylecun/mnist",
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100?label=fine_label",
    "svhn": "ufldl-stanford/svhn?config=cropped_digits",
}
"""The Hugging Face dataset behind a name, with the choices that its columns and configurations leave open."""

LOCAL_FORMS = (
    "a folder of Parquet files (train*.parquet, test*.parquet), a folder of class folders of images "
    "(train/CLASS/*.png, test/CLASS/*.png), an .npz file (x_train, y_train, x_test, y_test), a .csv file, "
    "or package.module:function"
)
"""The forms of data that need no network, as messages name them."""
