"""ModelConfig: every size of the networks, in one small frozen dataclass."""

import json
from dataclasses import asdict, dataclass, fields, replace

from movies.errors import InputError


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of MoVieS and VGGT; the defaults are the published networks' (VGGT-1B).

    `image_size` is the side that the stored position grid stands for; other sizes (multiples of `patch_size`) are
    read by resizing that grid. `static` is the network of the static stage: without times and motion heads. Raises
    InputError for sizes that contradict each other.
    """

    image_size: int = 518
    patch_size: int = 14
    embed_dim: int = 1024
    num_heads: int = 16
    vit_depth: int = 24
    vit_num_heads: int = 16
    aa_depth: int = 24
    dpt_features: int = 256
    dpt_out_channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    dpt_layer_idx: tuple[int, int, int, int] = (4, 11, 17, 23)
    num_register_tokens: int = 4
    mlp_ratio: float = 4.0
    rope_freq: float = 100
    time_dim: int = 20
    camera_trunk_depth: int = 4
    camera_num_heads: int = 16
    motion_threshold: float = 0.005
    static: bool = False

    def __post_init__(self) -> None:
        for name in ("dpt_out_channels", "dpt_layer_idx"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and value <= 0 and field.name not in ("motion_threshold", "static"):
                raise InputError(f"ModelConfig.{field.name} must be positive, got {value}")
        self._check_divisible()
        self._check_levels()

    def _check_divisible(self) -> None:
        rules = [
            ("image_size", self.image_size, "patch_size", self.patch_size),
            ("embed_dim", self.embed_dim, "vit_num_heads", self.vit_num_heads),
            # RoPE rotates pairs in each half of a head.
            ("embed_dim", self.embed_dim, "4 * num_heads", 4 * self.num_heads),
            ("2 * embed_dim", 2 * self.embed_dim, "camera_num_heads", self.camera_num_heads),
            # The sin-cos embedding of image positions needs four channels a frequency, also at half the features.
            ("dpt_features", self.dpt_features, "8", 8),
            *((f"dpt_out_channels[{i}]", channels, "4", 4) for i, channels in enumerate(self.dpt_out_channels)),
            ("time_dim", self.time_dim, "2", 2),
        ]
        for name, value, divisor_name, divisor in rules:
            if value % divisor:
                raise InputError(f"ModelConfig: {name} = {value} must be a multiple of {divisor_name} ({divisor})")

    def _check_levels(self) -> None:
        for name in ("dpt_out_channels", "dpt_layer_idx"):
            if len(getattr(self, name)) != 4:
                raise InputError(f"ModelConfig.{name} must have 4 entries, got {list(getattr(self, name))}")
        levels = list(self.dpt_layer_idx)
        if levels != sorted(set(levels)) or levels[0] < 0 or levels[-1] >= self.aa_depth:
            raise InputError(
                f"ModelConfig.dpt_layer_idx must increase within 0..{self.aa_depth - 1} (aa_depth - 1), got {levels}"
            )

    @property
    def grid(self) -> int:
        """Patches along one side of the stored position grid."""
        return self.image_size // self.patch_size

    @staticmethod
    def preset(name: str) -> "ModelConfig":
        """A named configuration: "vggt-1b" (the published sizes) or "tiny" (trains on two CPU cores)."""
        if name not in PRESETS:
            raise InputError(f"unknown model preset {name!r}: choose one of {', '.join(PRESETS)}")
        return PRESETS[name]

    def with_patch_size(self, patch_size: int) -> "ModelConfig":
        """The same network on the same token grid with another patch size, and so another image size."""
        return replace(self, patch_size=patch_size, image_size=self.grid * patch_size)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "ModelConfig":
        """Read `to_json`'s text; raises InputError for text that is not JSON and for unknown keys."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"the model's config is not JSON ({error})") from error
        known = {field.name for field in fields(ModelConfig)}
        if not isinstance(values, dict) or set(values) - known:
            unknown = sorted(set(values) - known) if isinstance(values, dict) else type(values).__name__
            raise InputError(f"unknown keys in the model's config: {unknown}; known are {sorted(known)}")
        return ModelConfig(**values)


PRESETS = {
    "vggt-1b": ModelConfig(),
    "tiny": ModelConfig(
        image_size=112,
        embed_dim=192,
        num_heads=6,
        vit_depth=1,
        vit_num_heads=6,
        aa_depth=4,
        dpt_features=32,
        dpt_out_channels=(32, 48, 96, 96),
        dpt_layer_idx=(0, 1, 2, 3),
        camera_trunk_depth=1,
        camera_num_heads=6,
    ),
}
