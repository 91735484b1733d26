"""Every setting, its default and its range, and how a command line becomes settings."""

from mirror.config.settings import *  # noqa: F403
