"""movies: one monocular video to a 4D scene of moving 3D Gaussians.

Letters of shape comments: B batch, V context views, T target times, H W pixels, h w patches, N Gaussians, P tracked
points, L tokens, D channels, `...` any leading dims. Conventions: geometry.py.
"""
