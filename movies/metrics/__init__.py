"""Measures of a prediction against the truth: pure functions, one value per sample."""

from movies.metrics.depth import absrel, boundary_error, delta, fit_scale_shift, root_mean_square, square_relative
from movies.metrics.images import iou, masked_psnr, masked_ssim, psnr, quantised, ssim
from movies.metrics.points import (
    PIXEL_THRESHOLDS,
    TrackScores,
    endpoint_error,
    median_distance,
    median_scale,
    pixel_distance,
    point_l1,
    track_scores,
    within,
)
from movies.metrics.poses import (
    RelativePoseError,
    relative_pose_error,
    rotation_error,
    trajectory_error,
    translation_angle,
    translation_error,
)

__all__ = [
    "PIXEL_THRESHOLDS",
    "RelativePoseError",
    "TrackScores",
    "absrel",
    "boundary_error",
    "delta",
    "endpoint_error",
    "fit_scale_shift",
    "iou",
    "masked_psnr",
    "masked_ssim",
    "median_distance",
    "median_scale",
    "pixel_distance",
    "point_l1",
    "psnr",
    "quantised",
    "relative_pose_error",
    "root_mean_square",
    "rotation_error",
    "square_relative",
    "ssim",
    "track_scores",
    "trajectory_error",
    "translation_angle",
    "translation_error",
    "within",
]
