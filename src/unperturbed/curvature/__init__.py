"""The local geometry of the loss, per example: gradients, slopes, Hessian products, spectra and linearity."""
