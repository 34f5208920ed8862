"""What a stage takes of each GPU's memory: weights, gradients and moments exactly, activations by a rough count."""

from dataclasses import dataclass, fields

from movies.train.stage import Stage, StageFile

FLOAT, HALF = 4, 2  # bytes
# Bytes that one block keeps for its backward pass, for each channel of each token: the residual stream in float32,
# queries, keys, values and the four times wider hidden layer in bf16. Fitted, like the heads' maps, to the tensors that
# a small network was seen to keep (within 5 %).
BLOCK = 45
RENDERED = 120  # bytes a splat takes in the rasteriser, for each picture


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU."""

    weights: float
    gradients: float
    moments: float
    activations: float

    @property
    def total(self) -> float:
        return sum(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        parts = ", ".join(f"{field.name} {getattr(self, field.name) / 1e9:.1f}" for field in fields(self))
        return f"{self.total / 1e9:.1f} GB ({parts})"


def estimate(file: StageFile, strategy: str, processes: int) -> Memory:
    """Of a stage trained with a strategy by so many processes; all of its states are float32."""
    stage = file.stage
    whole = sum(p.numel() for p in file.skeleton.parameters())
    trained = sum(count for multiplier, count in file.group_sizes().items() if multiplier > 0)
    shared = {"zero1": 1, "zero2": 2, "zero3": 3}.get(strategy, 0)
    weights, gradients, moments = FLOAT * whole, FLOAT * trained, 2 * FLOAT * trained
    if strategy == "ddp":
        gradients *= 2  # and the buckets in which they are sent
    return Memory(
        weights / (processes if shared >= 3 else 1) + (FLOAT * whole if stage.optim.ema else 0),
        gradients / (processes if shared >= 2 else 1),
        moments / (processes if shared >= 1 else 1),
        activations(stage),
    )


def activations(stage: Stage) -> float:
    """Bytes kept between forward and backward by the largest batch that a device takes at once."""
    data, config = stage.data, stage.model_config_()
    views = data.views[1]
    clips = data.buckets(1).clips_at_once(views, stage.optim.batch_size, data.clips_per_sequence)
    if stage.network == "d4rt":
        tokens = -(-views // config.tubelet) * (config.grid**2 + 1) * config.embed_dim
        asked = stage.objective_config().num_queries * config.decoder_dim
        every = 1 / config.depth if stage.model.checkpointing else 1
        return BLOCK * clips * (every * config.depth * tokens + config.decoder_depth * asked)
    times = 0 if config.static or stage.network == "vggt" else data.targets
    frames, side = clips * views, data.image_size
    tokens = frames * ((side // config.patch_size) ** 2 + config.num_register_tokens + 3)

    blocks, dim = config.vit_depth + 2 * config.aa_depth, config.embed_dim
    inside = BLOCK * tokens * dim
    trunk = blocks * FLOAT * tokens * dim + inside if stage.model.checkpointing else blocks * inside
    levels = len(config.dpt_layer_idx) * tokens * 2 * dim * (FLOAT + HALF)

    pixels = frames * side**2
    heads = 2 + 2 * times
    decoded = pixels * _head_bytes(config.dpt_features) * (1 if stage.model.checkpointing else heads)
    maps = FLOAT * pixels * (16 + times * 40)  # raw channels, activated splats and what their gradients need
    return trunk + levels + decoded + maps + RENDERED * pixels * _rendered(stage)


def _head_bytes(features: int) -> float:
    """Of one head a pixel: full-resolution maps, then refined maps of a third, a twelfth ... of the pixels."""
    return HALF * (features / 2 + 2 * 32 + 3 * features * 0.33 + 8 * features * 0.082)


def _rendered(stage: Stage) -> int:
    """Pictures a clip."""
    loss = stage.objective_config()
    drawn = stage.network == "movies" and (loss.mse or loss.ssim or loss.lpips)
    return min(loss.num_rendered, stage.data.targets) if drawn else 0
