"""D4RT: a video encoded once, then asked for one point at a time (arXiv 2512.08924)."""
