"""One check for tensor shapes at public boundaries."""

from torch import Tensor

from movies.errors import InputError


def check_shape(name: str, tensor: Tensor, shape: tuple[int | None, ...]) -> None:
    """Raise InputError unless `tensor` has `shape`; None stands for any size, a leading `...` for any leading dims.

    >>> check_shape("depth", depth, (B, V, H, W))
    """
    got = tuple(tensor.shape)
    want = tuple(shape)
    if want and want[0] is Ellipsis:
        want = want[1:]
        fits = len(got) >= len(want)
        got_tail = got[len(got) - len(want) :] if fits else got
    else:
        fits, got_tail = len(got) == len(want), got
    if not fits or any(w is not None and w != g for w, g in zip(want, got_tail, strict=True)):
        text = ", ".join("..." if n is Ellipsis else "*" if n is None else str(n) for n in shape)
        raise InputError(f"`{name}` must have shape [{text}], got {list(got)}")
