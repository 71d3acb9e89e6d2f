"""The one exception that means "the input is wrong", as opposed to a defect of this code."""


class InputError(ValueError):
    """A mistake in a file, an option or an argument, told in one line that names it and says how to mend it.

    The commands print the line to stderr and leave with exit code 2.
    """
