"""Generates short instructions with their answers, for the student's warm-up.

They teach the form (read, explain in a sentence, answer), and share no subject with the practice
domains.
"""

import random
from collections.abc import Callable

from bridge_jax.data.example import AnswerKind, Example

# (question, answer, kind, choices, explanation)
Item = tuple[str, str, AnswerKind, tuple[str, ...], str]

ANIMALS = ("horse", "tiger", "rabbit", "eagle", "salmon", "goat", "whale", "spider", "owl", "fox")
FRUITS = ("apple", "plum", "cherry", "lemon", "banana", "pear", "grape", "mango", "melon", "fig")
THINGS = ("table", "window", "hammer", "pencil", "bottle", "carpet", "ladder", "mirror", "spoon")
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "purple")
NAMES = ("Alma", "Bruno", "Celia", "David", "Erika", "Felix", "Gina", "Henry", "Isla", "Jack")
GROUPS = {"an animal": ANIMALS, "a fruit": FRUITS, "a colour": COLOURS, "an object": THINGS}
WORDS = (*ANIMALS, *FRUITS, *THINGS, *COLOURS)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("open", "closed"), ("early", "late"),
    ("full", "empty"), ("young", "old"), ("hard", "soft"), ("dark", "light"), ("rich", "poor"),
)  # fmt: skip
YES_NO = ("yes", "no")


def generate_instructions(seed: int, count: int) -> tuple[Example, ...]:
    """Returns `count` instructions with different questions, the types taking turns.

    A free-text answer is a label whose closed set holds only itself.
    """
    rng = random.Random(f"instructions-{seed}")
    examples: list[Example] = []
    seen: set[str] = set()
    attempts = 0
    while len(examples) < count:
        make = TYPES[attempts % len(TYPES)]
        attempts += 1
        question, answer, kind, choices, explanation = make(rng)
        if question in seen and attempts < 100 * count:
            continue
        if question in seen:
            raise ValueError(f"only {len(seen)} different instructions, {count} were asked for")
        seen.add(question)
        examples.append(
            Example(
                id=f"instruction-{make.__name__.strip('_')}-{len(examples):05d}",
                question=question,
                answer=answer,
                kind=kind,
                choices=choices,
                domain="instructions",
                rationales={"medium": explanation},
            )
        )
    return tuple(examples)


def _free(question: str, answer: str, explanation: str) -> Item:
    return question, answer, "label", (answer,), explanation


def _ask(rng: random.Random, *ways: str) -> str:
    return rng.choice(ways)


def _reverse(rng: random.Random) -> Item:
    words = rng.sample(WORDS, 3)
    ask = _ask(rng, "Write these words in reverse order", "Repeat this list from last to first")
    answer = ", ".join(reversed(words))
    return _free(f"{ask}: {', '.join(words)}.", answer, f"The last word, {words[-1]}, comes first.")


def _copy(rng: random.Random) -> Item:
    words = " ".join(rng.sample(WORDS, 4))
    ask = _ask(rng, "Copy these words exactly as they stand", "Repeat the following words as given")
    return _free(f"{ask}: {words}", words, "The words are kept in the same order.")


def _count(rng: random.Random) -> Item:
    words = rng.sample(WORDS, rng.randint(3, 8))
    ask = _ask(rng, "How many items are in this list?", "Count the words that follow.")
    question = f"{ask} {', '.join(words)}"
    return (
        question,
        str(len(words)),
        "numeric",
        (),
        f"The list goes from {words[0]} to {words[-1]}.",
    )


def _longest(rng: random.Random) -> Item:
    words = rng.sample(WORDS, 3)
    while sorted(map(len, words))[-1] == sorted(map(len, words))[-2]:
        words = rng.sample(WORDS, 3)
    answer = max(words, key=len)
    ask = _ask(
        rng, "Which of these words has the most letters", "Which is the longest of these words"
    )
    explanation = f"The word {answer} has {len(answer)} letters, more than the others."
    return f"{ask}: {', '.join(words)}?", answer, "choice", tuple(words), explanation


def _capitals(rng: random.Random) -> Item:
    word = rng.choice(WORDS)
    ask = _ask(
        rng, "Write this word in capital letters", "Put every letter of this word in capitals"
    )
    name = f"{rng.choice(COLOURS)} {word}"
    return _free(
        f"{ask}, keeping spaces: {name}", name.upper(), f"Each letter of {name} is raised."
    )


def _belongs(rng: random.Random) -> Item:
    group = rng.choice(list(GROUPS))
    answer = rng.choice(GROUPS[group])
    others = [rng.choice(words) for name, words in GROUPS.items() if name != group]
    words = rng.sample([answer, *others], 4)
    ask = _ask(rng, f"Which of these words is {group}", f"Only one of these is {group}. Which one")
    explanation = f"The word {answer} names {group}."
    return f"{ask}: {', '.join(words)}?", answer, "choice", tuple(words), explanation


def _add(rng: random.Random) -> Item:
    a, b = rng.randint(2, 40), rng.randint(2, 40)
    ask = _ask(rng, f"What do you get when you add {a} and {b}?", f"Work out {a} plus {b}, please.")
    return ask, str(a + b), "numeric", (), f"The sum is {a} + {b} = {a + b}."


def _subtract(rng: random.Random) -> Item:
    b, rest = rng.randint(2, 40), rng.randint(2, 40)
    a = b + rest
    ask = _ask(rng, f"What is left when you take {b} from {a}?", f"Work out {a} minus {b}, please.")
    return ask, str(rest), "numeric", (), f"The difference is {a} - {b} = {rest}."


def _first_letter(rng: random.Random) -> Item:
    word = rng.choice((*WORDS, *NAMES)).lower()
    which, letter = rng.choice((("first", word[0]), ("last", word[-1])))
    ask = _ask(
        rng, f"Give the {which} letter of the word", f"What is the {which} letter of this word:"
    )
    return _free(f"{ask} {word}.", letter, f"Spelled out it is {' '.join(word)}.")


def _sort(rng: random.Random) -> Item:
    numbers = rng.sample(range(1, 100), 3)
    up = rng.random() < 0.5
    order = "smallest to largest" if up else "largest to smallest"
    ask = _ask(rng, "Sort these numbers from", "Put these three numbers in order from")
    answer = ", ".join(map(str, sorted(numbers, reverse=not up)))
    explanation = f"It begins with {min(numbers) if up else max(numbers)}."
    return _free(f"{ask} {order}: {', '.join(map(str, numbers))}.", answer, explanation)


def _has(rng: random.Random) -> Item:
    name, other = rng.sample(NAMES, 2)
    colour, thing, fruit = rng.choice(COLOURS), rng.choice(THINGS), rng.choice(FRUITS)
    asked = rng.choice((name, other))
    text = f"{name} has a {colour} {thing}. {other} has a {fruit}."
    ask = _ask(rng, f"Does {asked} have the {thing}?", f"Does the {thing} belong to {asked}?")
    answer = "yes" if asked == name else "no"
    question = f"{text} {ask} Say yes or no."
    return question, answer, "label", YES_NO, f"The text says that {name} has the {thing}."


def _colour(rng: random.Random) -> Item:
    name, colour, thing = rng.choice(NAMES), rng.choice(COLOURS), rng.choice(THINGS)
    text = f"{name} bought a {colour} {thing} in town."
    ask = _ask(rng, f"What colour is the {thing}?", f"Which colour did {name} choose?")
    return f"{text} {ask}", colour, "label", COLOURS, f"The text calls the {thing} {colour}."


def _who(rng: random.Random) -> Item:
    names = rng.sample(NAMES, 3)
    text = f"{names[0]} is taller than {names[1]}. {names[1]} is taller than {names[2]}."
    tall = rng.random() < 0.5
    answer = names[0] if tall else names[2]
    ask = f"Who is the {'tallest' if tall else 'shortest'} of the three?"
    explanation = f"From tall to short they are {', '.join(names)}."
    return f"{text} {ask}", answer, "choice", tuple(names), explanation


def _digit(rng: random.Random) -> Item:
    digits = rng.sample(range(10), 2)
    shown, words = " ".join(map(str, digits)), " ".join(DIGITS[digit] for digit in digits)
    if rng.random() < 0.5:
        question = f"Write these two digits as English words, in the same order: {shown}"
        return _free(question, words, f"{digits[0]} is {DIGITS[digits[0]]}.")
    question = f"Write these two number words as digits, in the same order: {words}"
    return _free(question, shown, f"The word {DIGITS[digits[0]]} is {digits[0]}.")


def _opposite(rng: random.Random) -> Item:
    pair = rng.choice(OPPOSITES)
    word, answer = rng.sample(pair, 2)
    others = [rng.choice(other) for other in rng.sample(OPPOSITES, 3) if other != pair][:2]
    words = rng.sample([answer, *others], 3)
    ask = _ask(
        rng,
        f'Which of these words is the opposite of "{word}"',
        f'Which one is the opposite of "{word}"',
    )
    explanation = f"What is {word} is not {answer}."
    return f"{ask}: {', '.join(words)}?", answer, "choice", tuple(words), explanation


def _largest(rng: random.Random) -> Item:
    numbers = rng.sample(range(1, 200), 4)
    up = rng.random() < 0.5
    ask = _ask(rng, "Look at these four numbers and give the", "Of these numbers, tell me the")
    answer = str(max(numbers) if up else min(numbers))
    word = "largest" if up else "smallest"
    question = f"{ask} {word}: {', '.join(map(str, numbers))}."
    return question, answer, "numeric", (), f"No other number is {word[:-3]}er than {answer}."


def _letters(rng: random.Random) -> Item:
    word = rng.choice((*WORDS, *NAMES)).lower()
    ask = _ask(
        rng, "How many letters does this word have", "How many letters are there in the word"
    )
    return f"{ask}: {word}?", str(len(word)), "numeric", (), f"Spelled out it is {' '.join(word)}."


def _position(rng: random.Random) -> Item:
    words = rng.sample(WORDS, 4)
    place = rng.randrange(4)
    name = ("first", "second", "third", "fourth")[place]
    ask = _ask(
        rng, f"What is the {name} word of this list", f"Which item comes {name} in this list"
    )
    explanation = f"Counting from {words[0]}, number {place + 1} is {words[place]}."
    return f"{ask}: {', '.join(words)}?", words[place], "choice", tuple(words), explanation


TYPES: tuple[Callable[[random.Random], Item], ...] = (
    _reverse, _copy, _count, _longest, _capitals, _belongs, _add, _subtract, _first_letter,
    _sort, _has, _colour, _who, _digit, _opposite, _largest, _letters, _position,
)  # fmt: skip
