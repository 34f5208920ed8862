"""D4RT: encode a video once, then ask for any point of any frame at any time in any frame's camera."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from movies.d4rt.config import D4RTConfig
from movies.d4rt.decoder import QueryDecoder
from movies.d4rt.encoder import VideoEncoder
from movies.d4rt.queries import OUTPUTS, Queries, QueryAnswers, SceneTokens
from movies.errors import InputError
from movies.model.layers import own_precision, set_checkpointing
from movies.model.weights import Pretrained, find_weights
from movies.shapes import check_shape

MEMORY_BUDGET = 1 << 28  # bytes that the activations of one chunk of queries may take
# On CPU a product's rounding depends on its number of rows: in chunks of one size an answer is the same to the last bit
# in any company. More at once is not faster.
BLOCK = 512


class D4RT(nn.Module):
    """The query network with random weights; `from_pretrained` reads them."""

    def __init__(self, config: D4RTConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = VideoEncoder(config)
        self.decoder = QueryDecoder(config)

    @staticmethod
    def from_pretrained(name: str | Path, dtype: torch.dtype = torch.float32) -> "D4RT":
        """The bundled "tiny" weights, or those of a file of ours, in eval mode. Raises InputError as others do."""
        return D4RT.find(name).load(D4RT, dtype)

    @staticmethod
    def find(name: str | Path) -> Pretrained:
        """The weights that `from_pretrained` would load, with their config, unread."""
        return find_weights("D4RT", name, {"D4RT": D4RTConfig})

    def set_checkpointing(self, enabled: bool) -> None:
        """Recompute activations in the backward pass."""
        set_checkpointing(self, enabled)

    def encode(self, video: Tensor, aspect: Tensor | None = None) -> SceneTokens:  # [B, T, 3, H, W] in [0, 1], [B]
        """Frames of any size to tokens; `aspect` is the picture's width over height where `video` no longer shows it.

        Raises InputError for more frames than the tables know.
        """
        check_shape("video", video, (None, None, 3, None, None))
        num_batch, num_frames, _, height, width = video.shape
        known = self.config.num_frames
        if not 1 <= num_frames <= known:
            raise InputError(
                f"D4RT reads 1 to {known} frames, got {num_frames}: take fewer, or reconstruct the video in chunks"
            )
        if aspect is None:
            aspect = video.new_full((num_batch,), width / height)
        check_shape("aspect", aspect, (num_batch,))
        frames = square(video, self.config.image_size)
        with own_precision(self):
            return SceneTokens(self.encoder(frames, aspect), frames)

    def query(self, tokens: SceneTokens, queries: Queries, memory_budget: int = MEMORY_BUDGET) -> QueryAnswers:
        """Answers to any number of queries, in chunks that take about `memory_budget` bytes of activations.

        Every answer is what it would be if its query were asked alone. Raises InputError for positions outside
        [0, 1] and frames outside the video.
        """
        check_shape("queries.uv", queries.uv, (len(tokens.features), None, 2))
        queries.check(tokens.num_frames)
        count, chunk = len(queries), self.chunk_size(len(tokens.features), memory_budget)
        on_cpu = queries.uv.device.type == "cpu"  # there the last chunk is filled up
        with own_precision(self):
            memory = self.decoder.remember(tokens.features)
            raw = queries.uv.new_empty(*queries.uv.shape[:2], OUTPUTS)  # parts kept apart would leave holes in memory
            for start in range(0, count, chunk):
                index = torch.arange(start, start + chunk if on_cpu else min(start + chunk, count)).clamp(max=count - 1)
                raw[:, start : start + chunk] = self.decoder(queries[index], tokens, memory)[:, : count - start]
        return QueryAnswers.from_raw(raw, queries.uv)

    def chunk_size(self, num_batch: int, memory_budget: int) -> int:
        """How many queries of each video fit the budget: a few floats for every channel and colour of a query."""
        config = self.config
        floats = 14 * config.decoder_dim + 12 * (config.rgb_patch + 1) ** 2
        fitting = max(1, memory_budget // (4 * floats * num_batch))
        return min(fitting, BLOCK) if next(self.parameters()).device.type == "cpu" else fitting

    def forward(self, video: Tensor, aspect: Tensor, queries: Queries) -> QueryAnswers:
        """`encode` and `query` in one, unchecked and unchunked: what training calls."""
        tokens = self.encode(video, aspect)
        raw = self.decoder(queries, tokens, self.decoder.remember(tokens.features))
        return QueryAnswers.from_raw(raw, queries.uv)


def square(video: Tensor, size: int) -> Tensor:  # [B, T, 3, H, W] -> [B, T, 3, size, size]
    """Frames resized to a square, antialiased."""
    if tuple(video.shape[-2:]) == (size, size):
        return video
    flat = F.interpolate(video.flatten(0, 1), (size, size), mode="bilinear", antialias=True, align_corners=False)
    return flat.clamp(0, 1).unflatten(0, video.shape[:2])
