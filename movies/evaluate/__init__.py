"""Evaluation: one protocol a file."""
