"""32x32 colour images, 10 classes, 50,000 + 10,000 (Hugging Face: uoft-cs/cifar10)"""

PLACE = "uoft-cs/cifar10"
THREAT = "Linf:8/255"
