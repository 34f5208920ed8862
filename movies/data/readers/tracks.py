"""Tracks as the datasets have them, in one canonical form."""

import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.clip import Tracks
from movies.geometry import project


def seen_tracks(points: Tensor, visible: Tensor, cameras: Cameras) -> Tracks:  # [V, P, 3], [V, P], [V]
    """World points, NaN where not known; visible only where known, in front of the camera and in the image."""
    known = points.isfinite().all(dim=-1)
    points = torch.where(known[..., None], points, torch.nan)
    xy, z = project(points, cameras.fxfycxcy, cameras.c2w)
    inside = ((xy >= 0) & (xy <= 1)).all(dim=-1) & (z > 0)  # False for NaN
    return Tracks(points, visible & known & inside)
