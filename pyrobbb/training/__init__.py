"""Fitting: the checked configuration, the training loop and what it reads and writes."""
