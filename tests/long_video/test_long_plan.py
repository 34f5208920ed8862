from itertools import pairwise

import pytest
import torch

from movies.errors import InputError
from movies.long_video.plan import Sizes, fit_memory, make_plan, parse_memory


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    """A clip that drifts slowly over one random texture."""
    generator = torch.Generator().manual_seed(seed)
    texture = torch.nn.functional.interpolate(
        torch.rand(1, 1, 8, 16 + count // 8, generator=generator), (36, 128 + count)
    )
    return torch.stack([texture[0, 0, :, k : k + 64] for k in range(count)])


def test_chunks_cover_the_clip_evenly_and_share_frames():
    plan = make_plan(pictures(100), 13, 3)
    chunks = [chunk.frames for chunk in plan.chunks]
    assert chunks[0][0] == 0 and chunks[-1][-1] == 99 and {len(c) for c in chunks} == {13}
    shared = [len(set(a) & set(b)) for a, b in pairwise(chunks)]
    assert min(shared) >= 3 and max(shared) <= 5
    assert not plan.left_out and plan.num_shots == 1 and not plan.said()
    assert plan.described(10**9).startswith("100 frames in 10 chunks of up to 13 with 9 joints; 1 shot; about 1.0 GB")


@pytest.mark.parametrize("count", [2, 5, 13])
def test_a_short_clip_is_one_chunk(count):
    assert [c.frames for c in make_plan(pictures(count)).chunks] == [tuple(range(count))]


def test_one_frame_more_makes_two_chunks():
    assert [c.frames for c in make_plan(pictures(14)).chunks] == [tuple(range(13)), tuple(range(1, 14))]


def test_a_cut_begins_a_scene_of_its_own():
    plan = make_plan(torch.cat([pictures(20, 0), pictures(17, 1)]), 13, 3)
    assert [(c.shot, c.frames[0], c.frames[-1]) for c in plan.chunks] == [
        (0, 0, 12),
        (0, 7, 19),
        (1, 20, 32),
        (1, 24, 36),
    ]
    assert "begins at frame 20" in plan.said()[0]


def test_a_black_stretch_is_left_out_and_bridged_where_the_picture_goes_on():
    clip = pictures(30)
    clip[10:13] = 0.02
    plan = make_plan(clip, 13, 3)
    assert plan.left_out == (10, 11, 12) and plan.num_shots == 1
    assert plan.chunks[0].frames == (*range(10), 13, 14, 15)
    assert "3 frames between 10 and 12" in plan.said()[0]
    changed = torch.cat([clip[:13], pictures(17, 1)])
    assert make_plan(changed, 13, 3).num_shots == 2


def test_identical_frames_are_read_as_they_are():
    clip = pictures(30)
    clip[11] = clip[12]
    assert make_plan(clip, 13, 3).num_shots == 1


def test_a_clip_of_nothing_is_refused():
    with pytest.raises(InputError, match="no two frames"):
        make_plan(torch.zeros(30, 36, 64))


@pytest.mark.parametrize(("length", "overlap"), [(13, 13), (13, 0), (1, 1)])
def test_overlaps_that_do_not_fit(length, overlap):
    with pytest.raises(InputError, match="overlap is 1 to"):
        make_plan(pictures(30), length, overlap)


def test_a_place_seen_again_makes_a_chunk_of_both():
    clip = torch.cat([pictures(60), pictures(60).flip(0)])
    plan = make_plan(clip, 13, 3, loops=True)
    assert len(plan.chunks) == 12 and plan.loops
    frames = plan.loops[0].frames
    assert len(frames) == 12 and frames[5] - frames[0] == 5 and frames[11] - frames[6] == 5
    assert abs((frames[2] + frames[8]) - 119) < 4  # the same places, seen the other way round
    assert not make_plan(clip, 13, 3).loops


def test_memory_shortens_chunks():
    sizes = Sizes((518, 518), (1080, 1920), 4 * 10**9)
    whole = sizes.bytes_needed(13)
    assert fit_memory(whole, 13, 3, sizes) == 13
    assert 4 <= fit_memory(whole - 10**9, 13, 3, sizes) < 13
    with pytest.raises(InputError, match=r"4 frames of 518x518 need about .*G of memory, more than 1\.0G"):
        fit_memory(10**9, 13, 3, sizes)


def test_amounts_of_memory():
    assert parse_memory("8G") == parse_memory("8 GB") == 8 * 10**9
    assert parse_memory("1.5g") == 1500 * 10**6 and parse_memory("800M") == 800 * 10**6
    for wrong in ("", "8X", "0G", "-1G", "1.2.3G"):
        with pytest.raises(InputError, match="give bytes as 8G"):
            parse_memory(wrong)
