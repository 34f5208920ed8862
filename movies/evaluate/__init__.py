"""Evaluation: frozen protocols, their readers, what is scored and how runs are reported and compared."""
