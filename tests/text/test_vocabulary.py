"""A trimmed tokenizer reads the texts of the data as before, and any other text losslessly."""

import json

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from bridge_jax.errors import UserError
from bridge_jax.text.vocabulary import Vocabulary

CORPUS = [
    "the smear of the patient shows the crystals; 12 crystals were counted",
    "naïve café 東京, a smear and a swab",
    "theatre there these other mother swabs",
] * 7
OTHER = "The zebra's 🙂 x\n\t東京-京都: smearing theatres, 3.14"


def bpe(merges, tokens, **options):
    """Returns the tokenizer.json of a BPE with these merges, whose single tokens come first."""
    names = [*tokens, *("".join(merge) for merge in merges)]
    model = models.BPE({name: i for i, name in enumerate(names)}, merges, **options)
    return json.loads(tokenizers.Tokenizer(model).to_str())


def names(found, kept):
    ids = {i: name for name, i in found["model"]["vocab"].items()}
    return [ids[i] for i in kept]


def test_the_tokens_that_a_used_one_is_joined_from_are_kept():
    found = bpe([("a", "b"), ("c", "d"), ("ab", "c"), ("abc", "d"), ("d", "d")], "abcd")
    kept = Vocabulary(found, 999).kept([found["model"]["vocab"]["abcd"]], 0, multiple=1)
    assert names(found, kept) == ["a", "b", "c", "d", "ab", "abc", "abcd"]
    trimmed = Vocabulary(found, 999).trimmed(kept)["model"]
    # "cd" comes before "abc" in the order of merges: had it been kept, "abcd" would be "ab", "cd".
    assert trimmed["merges"] == [["a", "b"], ["ab", "c"], ["abc", "d"]]
    assert trimmed["vocab"] == {n: i for i, n in enumerate(names(found, kept))}


def test_common_tokens_are_the_first_merges_and_more_fill_up_the_number():
    found = bpe([("a", "b"), ("c", "d"), ("ab", "c"), ("abc", "d"), ("d", "d")], "abcd")

    def of(common, multiple):
        return names(found, Vocabulary(found, 999).kept([], common, multiple=multiple))

    assert of(0, 1) == ["a", "b", "c", "d"]
    assert of(2, 1) == ["a", "b", "c", "d", "ab", "cd"]
    assert of(2, 4) == ["a", "b", "c", "d", "ab", "cd", "abc", "abcd"]
    assert of(2, 5) == [*of(2, 4), "dd"]  # There are not ten tokens.
    assert of(99, 1) == [*of(2, 4), "dd"]


def byte_level():
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<bos>", "<eos>", "<|reserved_7|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    begin = processors.TemplateProcessing(
        single="<bos> $A <eos>",
        special_tokens=[(name, made.token_to_id(name)) for name in ("<bos>", "<eos>")],
    )
    made.post_processor = processors.Sequence([processors.ByteLevel(), begin])
    return made


def with_byte_fallback():
    """Returns a BPE of characters, as Gemma's: unknown ones become bytes."""
    made = tokenizers.Tokenizer(models.BPE())
    made.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=160, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    model = json.loads(made.to_str())["model"]
    there = ["<unk>", *(f"<0x{i:02X}>" for i in range(256)), *model["vocab"]]
    made.model = models.BPE(
        {name: i for i, name in enumerate(there)},
        [tuple(merge) for merge in model["merges"]],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    made.add_special_tokens(["<bos>", "<eos>", "<unused3>"])
    return made


@pytest.mark.parametrize("make", [byte_level, with_byte_fallback])
@pytest.mark.parametrize("common", [0, 9])
def test_texts_are_read_as_before_and_others_losslessly(make, common):
    whole = make()
    texts = ["the smear of a patient", "a café", "mother", " smear"]
    read = [whole.encode(text, add_special_tokens=False).ids for text in texts]
    vocabulary = Vocabulary(json.loads(whole.to_str()), 999)
    kept = vocabulary.kept([i for ids in read for i in ids], common, multiple=1)
    small = tokenizers.Tokenizer.from_str(json.dumps(vocabulary.trimmed(kept)))
    assert small.get_vocab_size() == len(kept) < whole.get_vocab_size()
    assert len(kept) == len(set(kept))
    for text, ids in zip(texts, read):
        assert [kept[i] for i in small.encode(text, add_special_tokens=False).ids] == ids
    again = small.encode(OTHER, add_special_tokens=False)
    assert small.decode(again.ids) == OTHER
    assert len(again.ids) > len(whole.encode(OTHER, add_special_tokens=False).ids)
    assert {"<bos>", "<eos>"} <= small.get_vocab().keys()
    assert not {"<|reserved_7|>", "<unused3>"} & small.get_vocab().keys()


def test_the_tokens_that_a_post_processor_adds_have_their_new_ids():
    whole = byte_level()
    vocabulary = Vocabulary(json.loads(whole.to_str()), 999)
    kept = vocabulary.kept([], 0, multiple=1)
    small = tokenizers.Tokenizer.from_str(json.dumps(vocabulary.trimmed(kept)))
    assert small.encode("a").ids == [small.token_to_id(n) for n in ("<bos>", "a", "<eos>")]
    assert [kept[i] for i in small.encode("a").ids] == whole.encode("a").ids


def test_a_used_placeholder_is_kept():
    whole = byte_level()
    reserved = whole.token_to_id("<|reserved_7|>")
    assert reserved in Vocabulary(json.loads(whole.to_str()), 999).kept([reserved], 0)


def test_only_a_bpe_can_be_trimmed():
    unigram = tokenizers.Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)], 0, False))
    with pytest.raises(UserError, match="of type Unigram, and only a BPE can be trimmed"):
        Vocabulary(json.loads(unigram.to_str()), 9)


def test_the_ends_of_a_roberta_processor_are_kept_with_their_new_ids():
    whole = byte_level()
    ends = [(name, whole.token_to_id(name)) for name in ("<eos>", "<|reserved_7|>")]
    whole.post_processor = processors.RobertaProcessing(*ends)
    vocabulary = Vocabulary(json.loads(whole.to_str()), 999)
    kept = vocabulary.kept([], 0, multiple=1)
    small = tokenizers.Tokenizer.from_str(json.dumps(vocabulary.trimmed(kept)))
    assert [kept[i] for i in small.encode("a").ids] == whole.encode("a").ids
    assert small.encode("a").tokens == ["<|reserved_7|>", "a", "<eos>"]


def test_without_all_bytes_all_characters_are_kept():
    found = bpe([("a", "b")], ["a", "b", "é", "<0x61>", "<unk>"], byte_fallback=True)
    kept = Vocabulary(found, 999).kept([], 0, multiple=1)
    assert names(found, kept) == ["a", "b", "é"]


def test_a_token_without_a_row_is_left_out():
    found = bpe([("a", "b"), ("ab", "b"), ("b", "b")], "ab")
    assert names(found, Vocabulary(found, 4).kept([4], 9, multiple=1)) == ["a", "b", "ab", "abb"]


def test_added_tokens_come_after_the_vocabulary_that_has_holes():
    found = bpe([("a", "b")], "ab")
    found["model"]["vocab"]["ab"] = 7
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    found["added_tokens"] = [token | {"id": 5, "content": "<x>", "special": True}]
    kept = Vocabulary(found, 999).kept([7], 0, multiple=1)
    assert kept == [0, 1, 7, 5]
    small = tokenizers.Tokenizer.from_str(json.dumps(Vocabulary(found, 999).trimmed(kept)))
    assert [small.id_to_token(i) for i in range(4)] == ["a", "b", "ab", "<x>"]
    assert small.get_vocab_size() == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"end_of_word_suffix": "</w>"}}, "the setting end_of_word_suffix"),
        ({"model": {"dropout": 0.1}}, "the setting dropout"),
        ({"post_processor": {"type": "Odd"}}, "has a Odd, and only one without it"),
    ],
)
def test_what_is_not_supported_is_named(change, message):
    found = bpe([("a", "b")], "ab")
    found |= {key: {**(found[key] or {}), **value} for key, value in change.items()}
    with pytest.raises(UserError, match=message):
        Vocabulary(found, 9).kept([], 0)
