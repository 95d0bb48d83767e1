r"""Converts a public dataset to a JSON Lines file that a run can read (`bridge_jax.data.public`).

python -m launch.convert --from=pubmedqa --path=ori_pqal.json \
    --test_ids=test_ground_truth.json --train=ori_pqaa.json \
    --train_count=5000 --out=pubmedqa.jsonl
python -m launch.convert --from=legalbench --train=train.tsv --path=test.tsv \
    --out=unfair_tos.jsonl
python -m launch.convert --from=tatqa_numbers --train=tatqa_dataset_train.json \
    --dev=tatqa_dataset_dev.json --test=tatqa_dataset_test_gold.json \
    --out=tatqa.jsonl

Download the files first: nothing is fetched. Files of `--train`, `--dev` and `--test` keep their
split; those of `--path` are divided into splits. Rows that cannot be read are an error that names
them.
"""

import collections
import json
from pathlib import Path

from absl import flags

from bridge_jax import atomic, display
from launch.overrides import run_main

SOURCES = ("pubmedqa", "legalbench", "tatqa_numbers", "tatqa_spans")
FROM = flags.DEFINE_enum("from", None, SOURCES, "The dataset.", required=True)
OUT = flags.DEFINE_string("out", None, "The JSON Lines file to write.", required=True)
FILES = {
    "train": flags.DEFINE_list("train", [], "Files whose rows are for training."),
    "dev": flags.DEFINE_list("dev", [], "Files whose rows are for tuning (dev)."),
    "test": flags.DEFINE_list("test", [], "Files whose rows are for the test."),
    "path": flags.DEFINE_list("path", [], "Files whose rows are divided into splits."),
}
TEST_IDS = flags.DEFINE_string("test_ids", "", "A JSON file of the ids in --path for the test.")
TRAIN = flags.DEFINE_integer("train_count", 0, "Rows for training, at most; 0 is all.")
DEV = flags.DEFINE_integer("dev_count", 250, "Rows drawn from --path, without --dev.")
TEST = flags.DEFINE_integer("test_count", 500, "Rows drawn from --path, without --test.")
SEED = flags.DEFINE_integer("cut_seed", 0, "Seed of the cut and the order of training rows.")
ON_BAD_ROW = flags.DEFINE_enum("on_bad_row", "error", ("error", "skip"), "How to treat bad rows.")


def main(_: list[str]) -> None:
    """Writes the file and prints its counts."""
    # Imported late: this takes a second, and flags are read first.
    from rich.console import Console

    from bridge_jax.data import public

    counts = public.SplitCounts(TRAIN.value, DEV.value, TEST.value)
    files = {part: flag.value for part, flag in FILES.items()}
    found = public.convert(FROM.value, files, TEST_IDS.value, counts, SEED.value, ON_BAD_ROW.value)
    lines = (json.dumps(row, ensure_ascii=False) for row in found.rows)
    out = Path(OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(out, "".join(f"{line}\n" for line in lines))
    splits = collections.Counter(row["split"] for row in found.rows)
    counted = ", ".join(f"{splits[part]:,} {part}" for part in ("train", "dev", "test"))
    console = Console(highlight=False)
    display.say(console, f"{out}: {counted}")
    for reason, count in found.left_out.items():
        display.say(console, f"left out: {count:,} x {reason}")
    if found.bad.rows:
        display.print_error(found.bad.summary())


if __name__ == "__main__":
    run_main(main, takes_config=False)
