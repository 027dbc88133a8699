import os

import hypothesis
import torch

# The tensors here are small: threads gain nothing, and on a busy machine their waiting for each other costs much.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

hypothesis.settings.register_profile("unperturbed", deadline=None, database=None)
hypothesis.settings.load_profile("unperturbed")
