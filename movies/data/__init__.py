"""Training data: manifests, readers, synthetic worlds, sampling and batching."""
