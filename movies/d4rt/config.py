"""D4RTConfig: every size of the query network, in one small frozen dataclass."""

import json
from dataclasses import asdict, dataclass, fields

from movies.errors import InputError

MAY_BE_ZERO = ("rgb_patch", "rotary", "stem_depth")


@dataclass(frozen=True)
class D4RTConfig:
    """Sizes of D4RT; the defaults are the paper's (ViT-g, 48 frames of 256x256).

    `num_frames` is how many frames the position and time tables know, `tubelet` how many of them one token spans.
    `rgb_patch` is the side of the colour patch that a query carries, 0 for none. The encoder's blocks are VideoMAE's;
    with `rotary` they are those of VGGT's backbone, after `stem_depth` blocks of an image encoder. Raises InputError
    for sizes that contradict each other.
    """

    image_size: int = 256
    patch_size: int = 16
    num_frames: int = 48
    tubelet: int = 2
    embed_dim: int = 1408
    depth: int = 40
    num_heads: int = 16
    mlp_ratio: float = 4.3637  # 6,144 hidden channels at 1,408
    decoder_dim: int = 1216
    decoder_depth: int = 8
    decoder_heads: int = 19
    rgb_patch: int = 9
    rotary: bool = False
    stem_depth: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < (0 if field.name in MAY_BE_ZERO else 1):
                raise InputError(f"D4RTConfig.{field.name} must be positive, got {value}")
        rules = (
            ("image_size", self.image_size, "patch_size", self.patch_size),
            ("num_frames", self.num_frames, "tubelet", self.tubelet),
            ("embed_dim", self.embed_dim, "2 * num_heads", 2 * self.num_heads),
            ("embed_dim", self.embed_dim, "4 * num_heads, where rotary", 4 * self.num_heads if self.rotary else 1),
            ("decoder_dim", self.decoder_dim, "2 * decoder_heads", 2 * self.decoder_heads),
        )
        for name, value, divisor_name, divisor in rules:
            if value % divisor:
                raise InputError(f"D4RTConfig: {name} = {value} must be a multiple of {divisor_name} ({divisor})")

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def num_slices(self) -> int:
        """Tubelets along time."""
        return self.num_frames // self.tubelet

    @staticmethod
    def preset(name: str) -> "D4RTConfig":
        """A named configuration: "tiny" (trains on a CPU core), or the encoder's size "base" "large" "huge" "giant"."""
        if name not in PRESETS:
            raise InputError(f"unknown D4RT preset {name!r}: choose one of {', '.join(PRESETS)}")
        return PRESETS[name]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "D4RTConfig":
        """Read `to_json`'s text; raises InputError for text that is not JSON and for unknown keys."""
        try:
            return D4RTConfig(**json.loads(text))
        except (json.JSONDecodeError, TypeError) as error:
            raise InputError(f"the model's config is not one of D4RT ({error})") from error


PRESETS = {
    "tiny": D4RTConfig(
        image_size=56,
        patch_size=7,
        num_frames=8,
        tubelet=1,  # as the VGGT that it starts from
        rotary=True,
        stem_depth=1,
        embed_dim=192,
        depth=8,
        num_heads=6,
        mlp_ratio=4.0,
        decoder_dim=192,
        decoder_depth=4,
        decoder_heads=6,
    ),
    "base": D4RTConfig(
        embed_dim=768, depth=12, num_heads=12, mlp_ratio=4.0, decoder_dim=512, decoder_depth=8, decoder_heads=8
    ),
    "large": D4RTConfig(
        embed_dim=1024, depth=24, num_heads=16, mlp_ratio=4.0, decoder_dim=768, decoder_depth=8, decoder_heads=12
    ),
    "huge": D4RTConfig(
        embed_dim=1280, depth=32, num_heads=16, mlp_ratio=4.0, decoder_dim=1024, decoder_depth=8, decoder_heads=16
    ),
    "giant": D4RTConfig(),
}
