"""32x32 colour images, 100 classes, 50,000 + 10,000 (Hugging Face: uoft-cs/cifar100)"""

PLACE = "uoft-cs/cifar100?label=fine_label"
THREAT = "Linf:8/255"
