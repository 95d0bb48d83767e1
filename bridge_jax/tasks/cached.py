"""Stub until the cached one is merged."""

import dataclasses
import hashlib
import json

from bridge_jax.tasks import sources


def load(config, seed, folder, content):
    return sources.load(config, seed)


def digests(splits):
    out = {}
    for name in ("pool", "dev", "test"):
        h, r = hashlib.sha256(), hashlib.sha256()
        for e in getattr(splits, name):
            d = dataclasses.asdict(e)
            r.update(json.dumps([e.id, d.pop("rationales")]).encode())
            h.update(json.dumps(d, sort_keys=True).encode())
        out[name], out[f"{name}_recorded"] = h.hexdigest(), r.hexdigest()
    return out
