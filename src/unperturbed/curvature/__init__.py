"""The local geometry of the loss, per example: gradients, slopes, Hessian products, and what is built of them."""
