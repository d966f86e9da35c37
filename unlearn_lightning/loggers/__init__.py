"""Where a run's numbers go: W&B, TensorBoard, MLflow and CSV, also after a stop."""
