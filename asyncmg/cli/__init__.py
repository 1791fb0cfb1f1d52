"""The commands of ``python -m asyncmg``, one module each with ``add_arguments(parser)`` and ``run(options) -> int``.

Nothing is to be imported from here but by ``asyncmg.__main__``. ``serving`` is what the commands that serve share, and
``site`` holds the demo's page.
"""
