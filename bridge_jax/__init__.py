"""BRIDGE-JAX: turn an expensive black-box LLM into a small model you own, under a stated budget."""
