"""Writes 2,000 support tickets as a CSV file, as a person might have them.

    python tests/tickets.py tickets.csv

The columns are id, text and team (or id and text alone). One sentence of each text, one of eight
of its team, says what is wrong, and so the team; all others are beside the matter. Among the rows
are texts in several scripts, with quotation marks and over several lines, a few of hundreds of
words, texts that nearly repeat another, and some rows that nobody can use. There is no split.
"""

import csv
import random
import sys
from pathlib import Path

ROWS, NEAR, LONG = 2_000, 120, 15  # All rows, and those that nearly repeat another or are long.

# Team -> what its tickets complain of. The words before "|" are in no other ticket.
PROBLEMS = {
    "account": (
        "I cannot sign in| since {day}",
        "My password is refused| on the {thing} page",
        "Please change the e-mail address| of my profile to {name}@example.org",
        "Your site says that my profile is locked| after {number} attempts",
        "The code for two-factor login| never reaches my phone",
        "Please delete my profile| and all that you store about me",
        "Somebody else used my login| on {day} in {city}",
        "I have two profiles| and would like to keep the older one",
    ),
    "billing": (
        "I was charged twice| for the {thing} on {day}",
        "The invoice shows| {number} euros more than the offer did",
        "My credit card was declined| although it is valid",
        "You still debit the old subscription| of {number} euros a month",
        "The voucher was not deducted| from the price of the {thing}",
        "I need a receipt with VAT| for the {thing}",
        "The direct debit was returned| by my bank on {day}",
        "Why does the price include a fee| of {number} euros",
    ),
    "delivery": (
        "The parcel has not arrived| although it was promised for {day}",
        "The courier left my package| with a neighbor in {city} whom I do not know",
        "The tracking number shows nothing| since {day}",
        "Please ship it to another street| in {city}",
        "The driver says he rang| on {day}, but I was at home",
        "Only one of the two boxes came| and the {thing} is missing",
        "The shipment is stuck in customs| near {city}",
        "Can you bring it in the evening| of {day} instead",
    ),
    "returns": (
        "I want to send it back| because the {thing} is too large",
        "Where is the label for sending back| the {thing}",
        "The {thing} is the wrong color, I need an exchange| for a blue one",
        "You have had the goods back| since {day} and I still wait for my money",
        "I would like to withdraw from the purchase| of the {thing}",
        "Is it too late to give back| the {thing} that I bought on {day}",
        "The shop in {city} would not take it back| without the carton",
        "I got a smaller refund| than the {number} euros that I paid",
    ),
    "technical": (
        "The {thing} does not turn on| any more",
        "The app crashes| as soon as I open the settings",
        "The screen flickers| since the update of {day}",
        "The battery is empty| after {number} minutes",
        "Bluetooth finds no device| beside the {thing}",
        "The update stops| at {number} percent",
        "It makes a loud noise| when the {thing} gets warm",
        "An error {number} appears| whenever I press start",
    ),
}
TEAMS = tuple(PROBLEMS)

_BEFORE = (
    "Hello,",
    "Good morning from {city}!",
    "Dear team,",
    "Grüß Gott,",
    "Hi there 👋",
    "Bonjour, écrivez-moi en français s'il vous plaît.",
    "To whom it may concern:",
    "你好，",
    "This is about order {order}.",
    "I bought a {thing} in {city} on {day}.",
    "My order {order} is from {day}.",
    'It is my third message, and "soon" is no answer.',
    "I have been a customer for {number} months.",
)
_AFTER = (
    "My neighbor {name} has the same {thing} and is happy with it.",
    "Your colleague {name} said “we will call back”, and nobody did.",
    'The chat only answered: "please wait", {number} times.',
    "I need it before {day}, as I travel to {city}.",
    "The reference is {order}.",
    "Can you please look into this today?",
    "Otherwise I like the {thing} a lot.",
    "I attach a photo; see {order}.jpg.",
    "You can reach me in {city}, best after {number} o'clock.",
    "Thank you, {name}",
    "Mit freundlichen Grüßen, {name}",
    "Спасибо, {name}",
    "Regards\n{name}\n{city}",
)
_WORDS = {
    "thing": ("kettle", "headset", "lamp", "router", "scale", "radio", "drill", "printer", "fan"),
    "city": ("Graz", "Kraków", "Nîmes", "Malmö", "Porto", "Łódź", "Αθήνα", "Cork", "Tartu"),
    "day": ("Monday", "Tuesday", "May 2", "June 14", "last week", "the 3rd", "Friday", "yesterday"),
    "name": ("Zoë", "José", "Ágnes", "Björn", "Oluwaseun", "Nuria", "Søren", "Thảo", "O'Brien"),
}


def team_of(text: str) -> str:
    """Returns the team of a ticket; "" for a text that is none."""
    for team, problems in PROBLEMS.items():
        for problem in problems:
            if _mark(problem) in text:
                return team
    return ""


def write(path: str | Path, labelled: bool = True, seed: int = 0) -> None:
    """Writes the tickets to `path`; `labelled` says whether there is a column of teams."""
    rng = random.Random(seed)
    texts = [_text(rng, TEAMS[i % len(TEAMS)]) for i in range(ROWS - NEAR)]
    for i in rng.sample(range(len(texts)), LONG):
        texts[i] += "\n\n" + " ".join(
            f"> {_filled(rng, rng.choice(_BEFORE + _AFTER))}" for _ in range(rng.randint(60, 120))
        )
    texts += [_nearly(rng, text) for text in rng.sample(texts, NEAR)]
    rng.shuffle(texts)
    rows = [
        [f"T{number:05}", text, *([team_of(text)] if labelled else [])]
        for number, text in enumerate(texts, 1)
    ]
    _spoil(rng, rows, labelled)
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "team"][: 3 if labelled else 2])
        writer.writerows(rows)


def _text(rng: random.Random, team: str) -> str:
    before = rng.sample(_BEFORE, rng.randint(1, 2))
    after = rng.sample(_AFTER, rng.randint(1, 2))
    problem = rng.choice(PROBLEMS[team]).replace("|", "") + "."
    between = "\n" if rng.random() < 0.2 else " "
    return between.join(_filled(rng, sentence) for sentence in [*before, problem, *after])


def _filled(rng: random.Random, sentence: str) -> str:
    words = {name: rng.choice(values) for name, values in _WORDS.items()}
    return sentence.format(
        number=rng.randint(2, 90), order=f"{rng.randint(10**6, 10**7 - 1)}", **words
    )


def _nearly(rng: random.Random, text: str) -> str:
    """Returns the text as somebody might send it again."""
    return text + rng.choice((" Please!", " (sent again)", "!!", " Any news?"))


def _spoil(rng: random.Random, rows: list[list[str]], labelled: bool) -> None:
    """Makes ten rows bad, or eight where there are no labels."""
    bad = rng.sample(range(10, len(rows)), 10)
    for i in bad[:3]:
        rows[i][1] = ""
    for i in bad[3:6]:
        rows[i][0] = rows[i - 1][0]  # An id that was used before.
    for i in bad[6:8]:
        rows[i] += ["see above", ""]  # More cells than the header.
    if labelled:
        rows[bad[8]][2] = "unknown"
        rows[bad[9]][2] = "bililng"


def _mark(problem: str) -> str:
    """Returns the words that are in no other ticket."""
    return problem.partition("|")[0].rpartition("}")[2].strip()


if __name__ == "__main__":
    write(sys.argv[1])
