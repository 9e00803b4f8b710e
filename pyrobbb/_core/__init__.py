"""What every package builds on: checked arrays, random states, processes, named tensors."""

__all__: list[str] = []
