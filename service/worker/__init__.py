"""A worker: a process that takes job ids from Redis and does the jobs on this machine's engine."""

from .process import serve

__all__ = ["serve"]
