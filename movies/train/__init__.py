"""Training: stages (stage.py), the loop (trainer.py) and what it needs. The only door to accelerate and DeepSpeed."""
