import os

# We use only the tokenizers of transformers, so its warning about missing PyTorch is noise.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
