"""Shared foundations: validated arrays, random states, distributed processes, state dicts."""

__all__: list[str] = []
