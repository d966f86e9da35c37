"""Unlearning objectives, one a file: a pure loss function and a thin LightningModule."""
