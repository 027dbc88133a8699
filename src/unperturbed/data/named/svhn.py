"""32x32 colour house numbers, 10 classes, 73,257 + 26,032 (Hugging Face: ufldl-stanford/svhn)"""

PLACE = "ufldl-stanford/svhn?config=cropped_digits"
THREAT = "Linf:8/255"
