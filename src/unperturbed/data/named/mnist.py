"""28x28 grey digits, 10 classes, 60,000 + 10,000 (Hugging Face: ylecun/mnist)"""

PLACE = "ylecun/mnist"
THREAT = "Linf:0.3"
