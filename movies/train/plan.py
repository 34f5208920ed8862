"""The plan of a curriculum, for people: what `movies train --dry-run` says."""

from movies.train.stage import StageFile


def describe(stages: list[StageFile]) -> str:
    """One paragraph a stage: network, data mix, steps, learning rates, parameters."""
    return "\n\n".join(_describe(stage) for stage in stages)


def _describe(file: StageFile) -> str:
    stage = file.stage
    data, optim = stage.data, stage.optim
    count = sum(p.numel() for p in file.skeleton.parameters())
    low, high = data.views
    views = f"{low} views" if low == high else f"{low} to {high} views"
    lines = [
        f"{stage.name}: {stage.network} ({count / 1e6:.1f} M parameters) from {stage.init}",
        f"  {views} of {data.image_size}x{data.image_size}, {data.targets} targets; patch {stage.model.patch_size}",
        f"  {optim.steps} steps of {optim.batch_size} x {optim.accumulation} clips, {optim.precision}",
        f"  learning rate {optim.lr:g}, warm-up {optim.warmup} steps, cosine to {optim.lr * optim.final_lr:g}",
    ]
    lines += [f"  learning rate {optim.lr * g.multiplier:g} where the name matches {g.pattern}" for g in optim.groups]
    return "\n".join([*lines, *_mix(file)])


def _mix(file: StageFile) -> list[str]:
    counts = [(manifest.name, len(manifest.sequences()), repeats) for manifest, repeats in file.train]
    total = sum(number * repeats for _, number, repeats in counts)
    return [
        f"  data {name}: {number} sequences x {repeats} = {number * repeats / max(total, 1):.0%} of the mix"
        for name, number, repeats in counts
    ]
