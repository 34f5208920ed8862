"""The plan of a curriculum, for people: what `movies train --dry-run` says."""

from movies.errors import InputError
from movies.train.engine import chosen_strategy, num_processes
from movies.train.memory import estimate
from movies.train.stage import StageFile
from movies.train.start import absence


def describe(stages: list[StageFile]) -> str:
    """One paragraph a stage: network, data mix, steps, learning rates, parameters, memory."""
    return "\n\n".join("\n".join([*_network(file), *_optimiser(file), *_memory(file), *_mix(file)]) for file in stages)


def _network(file: StageFile) -> list[str]:
    stage, data = file.stage, file.stage.data
    count = sum(p.numel() for p in file.skeleton.parameters())
    static = ", without motion" if stage.model.static else ""
    low, high = data.views
    views = f"{low} views" if low == high else f"{low} to {high} views"
    size = f"{data.image_size}x{data.image_size}"
    if data.aspect != (1.0, 1.0):
        size = f"{data.image_size} pixels on the longer side, width / height {data.aspect[0]:g} to {data.aspect[1]:g}"
    motion = f", motion heads from {stage.model.motion_from}" if stage.model.motion_from else ""
    return [
        f"{stage.name}: {stage.network} ({count / 1e6:.1f} M parameters{static}) from {stage.init}{motion}",
        f"  {views} of {size}, {data.targets} targets; patch {stage.model.patch_size}",
    ]


def _optimiser(file: StageFile) -> list[str]:
    processes = _processes(file)
    optim = file.for_processes(processes).stage.optim
    clips = optim.batch_size * optim.accumulation * processes
    once = f"{optim.batch_size} x accumulation {optim.accumulation} x {processes} processes"
    lines = [
        f"  {optim.steps} steps of {clips} clips ({once}), {optim.precision}",
        f"  warm-up {optim.warmup} steps, cosine to {optim.final_lr:g} of the rate; clip {optim.clip:g}, "
        f"weight decay {optim.weight_decay:g}",
    ]
    for multiplier, count in sorted(file.group_sizes().items()):
        rate = f"learning rate {optim.lr * multiplier:g}" if multiplier else "frozen"
        patterns = [group.pattern for group in optim.groups if group.multiplier == multiplier]
        which = f" matching {' or '.join(patterns)}" if patterns else ""
        lines.append(f"  {rate}: {count / 1e6:.2f} M parameters{which}{' and all others' if multiplier == 1 else ''}")
    return lines


def _memory(file: StageFile) -> list[str]:
    """For the processes of the recipe, and where it also runs on fewer."""
    own, strategy = _processes(file), _strategy(file)
    lines = []
    for processes in sorted({1, 8, own} if own > 1 else {1}):
        try:
            accumulation = file.for_processes(processes).stage.optim.accumulation
        except InputError:
            continue
        used = estimate(file, strategy, processes)
        lines.append(f"  {strategy} on {processes} processes, accumulation {accumulation}: about {used} each")
    return lines


def _mix(file: StageFile) -> list[str]:
    """What every dataset counts; one that is not here counts as its manifest expects it."""
    reasons = [absence(manifest) for manifest, _ in file.train]
    counts = [
        manifest.expected.sequences if reason else len(manifest.sequences())
        for (manifest, _), reason in zip(file.train, reasons, strict=True)
    ]
    total = sum(count * repeats for count, (_, repeats) in zip(counts, file.train, strict=True))
    lines = []
    for (manifest, repeats), count, reason in zip(file.train, counts, reasons, strict=True):
        share = f"{count} sequences x {repeats} = {count * repeats}, {count * repeats / max(total, 1):.0%} of the mix"
        absent = f"; NOT HERE: {manifest.root}, counted as a whole download" if reason else ""
        lines.append(
            f"  data {manifest.name}: {share}{absent}" if count else f"  data {manifest.name}: unknown{absent}"
        )
    return lines


def _processes(file: StageFile) -> int:
    """Those that were started; without a launcher, those the recipe is meant for."""
    return num_processes() if num_processes() > 1 else file.stage.engine.processes


def _strategy(file: StageFile) -> str:
    strategy = file.stage.engine.strategy
    return chosen_strategy(strategy) if strategy == "auto" else strategy
