"""The error that means "the user can mend this": one clear sentence, exit code 2."""


class UserError(ValueError):
    """A mistake in a path, unit, shape, key, config or file, told in one sentence.

    The sentence says what is wrong, where, what was expected and what to do. The command line prints it without a
    traceback and ends with exit code 2.
    """


class ToldElsewhere(UserError):
    """Another process of the job tells the user what is wrong; this one ends with the same exit code and says nothing."""
