"""Datasets: indexed, checked, looked at."""

from tyro.conf import Positional

from movies.commands.arguments import Folder, Manifest


def data_index(manifest: Positional[Manifest]) -> None:
    """Write down once what sequences a dataset has, so that training need not list them.

    Example: movies data index data_manifests/tartanair.toml

    Args:
        manifest: A manifest or a mix.
    """
    from movies.data.checks import index_manifests

    for line in index_manifests(manifest):
        print(line)


def data_check(manifest: Positional[Manifest], sequences: int = 8) -> int:
    """Read a sample of a dataset and say what is broken, and the likely cause. Exit 1 where something is.

    Example: movies data check data_manifests/synthetic_wide_56.toml --sequences 2

    Args:
        manifest: A manifest or a mix.
        sequences: How many sequences to read, evenly over the dataset.
    """
    from movies.data.checks import check_manifests

    reports = check_manifests(manifest, sequences)
    for report in reports:
        print(report)
    return int(any(report.problems for report in reports))


def data_preview(manifest: Positional[Manifest], out: Folder, sequences: int = 2, frames: int = 24) -> None:
    """Draw images, depth and tracks of some sequences: a video and a sheet of each.

    Example: movies data preview data_manifests/synthetic_wide_56.toml --out out/preview

    Args:
        manifest: A manifest or a mix.
        out: Folder for the videos and pictures.
        sequences: How many sequences of every dataset.
        frames: How many frames of each, from its start.
    """
    from movies.data.preview import preview_manifests

    for path in preview_manifests(manifest, out, sequences, frames):
        print(f"wrote {path}")
