"""What every package builds on: checked arrays, random states, processes, named tensors."""
