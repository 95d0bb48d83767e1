"""Triage at an invented medical practice: it takes a few rules and no computation.

Each complaint belongs to a kind, each kind is sent to a place, and each place is on a floor. A
pretrained model may guess the kind, but has to learn the place and the floor. The teacher's answer
states one rule for each step of its question, so the budget determines how many rules are stated.
"""

import random

from bridge_jax.data.practice.problem import Problem, capital

COMPLAINTS = {
    "skin": ("a rash", "an itch"),
    "chest": ("a cough", "a wheeze"),
    "stomach": ("nausea", "cramps"),
    "joint": ("a stiff knee", "a sore wrist"),
    "eye": ("blurred sight", "a stye"),
    "ear": ("deafness", "an earache"),
    "tooth": ("a toothache", "sore gums"),
    "nose": ("a nosebleed", "sneezing"),
    "throat": ("a hoarse voice", "tonsillitis"),
    "head": ("a headache", "dizziness"),
    "heart": ("palpitations", "a racing pulse"),
    "sleep": ("insomnia", "nightmares"),
}
PLACE_OF_COMPLAINT = {
    "skin": "pharmacy",
    "chest": "hospital",
    "stomach": "hospital",
    "joint": "clinic",
    "eye": "pharmacy",
    "ear": "nurse",
    "tooth": "hospital",
    "nose": "clinic",
    "throat": "pharmacy",
    "head": "nurse",
    "heart": "nurse",
    "sleep": "clinic",
}
FLOORS = {"pharmacy": "third", "clinic": "first", "hospital": "fourth", "nurse": "second"}
# The answers of one, two and three steps.
ANSWERS = (tuple(COMPLAINTS), tuple(FLOORS), tuple(FLOORS.values()))

NAMES = (
    "Ana", "Omar", "Carla", "Yusuf", "Hana", "Lena",
    "Chen", "Dora", "Rita", "Ivo", "Noor", "Pavel",
)  # fmt: skip
SPANS = (
    "since lunch",
    "for two hours",
    "since Monday",
    "for four days",
    "since May",
    "for a month",
)
TOLD = ("{name} has had {it} {span}.", "{name} calls about {it} {span}.", "{name} has {it} {span}.")
ASKS = (
    ("What kind of complaint is that?", "Of which kind is that?", "What kind does {name} have?"),
    ("Where should {name} go?", "Where is {name} sent?", "Where is {name} seen?"),
    ("Which floor is that?", "To which floor does {name} go?", "On which floor is {name} seen?"),
)


def draw(rng: random.Random, steps: int) -> Problem:
    """Returns a question that takes `steps` rules, 1 to 3, to answer."""
    kind = rng.choice(ANSWERS[0])
    it, place = rng.choice(COMPLAINTS[kind]), PLACE_OF_COMPLAINT[kind]
    told = {"name": rng.choice(NAMES), "it": it, "span": rng.choice(SPANS)}
    question = f"{rng.choice(TOLD)} {rng.choice(ASKS[steps - 1])}".format(**told)
    found = (kind, place, FLOORS[place])[:steps]
    rules = (
        f"{it} is {kind}",
        f"{kind} goes to the {place}",
        f"the {place} is on the {FLOORS[place]} floor",
    )[:steps]
    return Problem(
        question=question,
        answer=found[-1],
        labels=ANSWERS[steps - 1],
        rationales={
            "short": f"{capital(it)}: {', '.join(found)}.",
            "medium": f"{capital(', and '.join(rules))}.",
            "long": " ".join(
                [
                    f"{told['name']} has {it}, and we look up what the rules say of it.",
                    *(f"{capital(rule)}." for rule in rules),
                ]
            ),
        },
    )
