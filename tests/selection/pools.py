"""Hand-made pools."""

import numpy as np


def unit(degrees):
    """Returns f32[N, 2]: unit vectors at these angles."""
    angle = np.deg2rad(np.asarray(degrees, float))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def blobs(sizes, seed=0, spread=1.0):
    """Returns embeddings around 0, 120 and 240 degrees, and the blob of each."""
    truth = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(seed)
    truth = rng.permutation(truth)
    return unit(truth * 120 + rng.uniform(-spread, spread, len(truth))), truth


def unit_vectors(count, dim, seed=0, mean=0.0):
    """Returns f32[N, D], L2-normalised; with a `mean` they share a direction, as hidden states."""
    drawn = np.random.default_rng(seed).normal(size=(count, dim))
    drawn[:, 0] += mean
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
