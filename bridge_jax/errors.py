"""The error that a user can act on."""


class UserError(Exception):
    """Wrong config, data or environment. The message names the thing, the value and the way out.

    The launcher prints it without a traceback and exits with 2.
    """
