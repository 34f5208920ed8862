"""What a user did wrong, said in one line."""


class InputError(ValueError):
    """A mistake in what the user gave: its message names the thing and the mend.

    The command line prints it as `error: ...` and exits with 2; everything else is a defect of ours and keeps
    its traceback.
    """
