"""Medication dosing: invented drugs, and numbers chosen for easy arithmetic, not for patients."""

from bridge_jax.data.practice.chain import Chain, Stage

WORDS = {
    "p": (
        *("Ana", "Ben", "Carla", "Dev", "Elif", "Femi", "Grace", "Hugo", "Ines", "Jonas"),
        *("Kemi", "Liam", "Mina", "Noor", "Omar", "Petra", "Rosa", "Sam", "Tara", "Yusuf"),
    ),
    "drug": (
        *("Veltra", "Solmin", "Corvex", "Ralin", "Bremol", "Lumera"),
        *("Mirol", "Norvit", "Zelan", "Tamrin", "Ostra", "Pelor"),
    ),
}

SMALL = (2, 3, 4, 5, 6)
DAYS = (2, 3, 4, 5, 6, 7, 10)
TIMES = (2, 3, 4)

_TIMES_A_DAY = ("It is given {n} times a day.", "{p} takes it {n} times daily.")
_FOR_DAYS = ("Treatment lasts {n} days.", "The course is {n} days.", "It goes on for {n} days.")

CHAINS = (
    Chain(
        "syrup",
        ("the weight", "kg", (6, 8, 9, 10, 12, 15, 20, 30, 40)),
        (
            "{p} weighs {n} kg.",
            "{p}, a child of {n} kg, has a fever.",
            "A nurse weighs {p}: {n} kg.",
        ),
        (
            Stage(
                *("the dose", "x", (2, 3, 4, 5, 6, 8, 10, 12), "mg"),
                ("The order is {drug} {n} mg per kg.", "{drug} is dosed at {n} mg/kg."),
                "each kg needs {n} mg",
                ("How many mg is one dose?", "What is the single dose in mg?"),
                ("{p} needs {n} mg of {drug} per dose.", "One dose of {drug} for {p} is {n} mg."),
            ),
            Stage(
                *("the volume", "/", (2, 3, 4, 5, 6, 8, 10, 12, 20), "mL"),
                ("The syrup has {n} mg per mL.", "Its strength is {n} mg/mL."),
                "each mL holds {n} mg",
                ("How many mL is one dose?", "How many mL should be measured per dose?"),
                ("{p} takes {n} mL of {drug} syrup per dose.", "Each dose for {p} is {n} mL."),
            ),
            Stage(
                *("the daily volume", "x", TIMES, "mL", _TIMES_A_DAY, "a day has {n} doses"),
                ("How many mL is that a day?", "What is the daily volume in mL?"),
                ("{p} drinks {n} mL of {drug} syrup a day.",),
            ),
            Stage(
                *("the course volume", "x", DAYS, "mL", _FOR_DAYS, "the course has {n} days"),
                ("How many mL does the whole course need?", "What is the total volume in mL?"),
                ("The whole course of {drug} for {p} is {n} mL.",),
            ),
            Stage(
                *("the number of bottles", "/", (10, 20, 30, 40, 50, 60, 100), ""),
                ("A bottle holds {n} mL.", "Bottles of {n} mL are in stock."),
                "each bottle holds {n} mL",
                ("How many bottles are needed?", "How many bottles should be dispensed?"),
            ),
        ),
    ),
    Chain(
        "tablets",
        ("the dose", "mg", (20, 30, 40, 50, 60, 80, 100, 120, 150, 200, 300, 400, 500, 600, 800)),
        ("{p} is prescribed {n} mg of {drug} per dose.", "Each dose of {drug} for {p} is {n} mg."),
        (
            Stage(
                *("the dose in tablets", "/", (5, 10, 20, 25, 30, 40, 50, 100, 200), "tablets"),
                ("One tablet has {n} mg.", "The pharmacy has {n} mg tablets."),
                "each tablet has {n} mg",
                ("How many tablets make one dose?", "How many tablets are given per dose?"),
                ("{p} swallows {n} tablets of {drug} per dose.",),
            ),
            Stage(
                *("the daily count", "x", TIMES, "tablets", _TIMES_A_DAY, "a day has {n} doses"),
                ("How many tablets is that a day?", "How many tablets does {p} take daily?"),
                ("{p} takes {n} {drug} tablets a day.",),
            ),
            Stage(
                *("the course count", "x", DAYS, "tablets", _FOR_DAYS, "the course has {n} days"),
                ("How many tablets does the course need?", "How many tablets is that in all?"),
                ("The course for {p} needs {n} {drug} tablets.",),
            ),
            Stage(
                *("the count to order", "-", (2, 4, 5, 6, 8, 10, 12, 20), "tablets"),
                ("{p} still has {n} at home.", "The ward already holds {n} of them."),
                "{n} are already there",
                ("How many tablets must be ordered?", "How many more tablets are needed?"),
                ("{n} {drug} tablets must be ordered for {p}.",),
            ),
            Stage(
                *("the number of packs", "/", (5, 6, 8, 10, 12, 20), ""),
                ("A pack has {n} tablets.", "They come in packs of {n}."),
                "each pack has {n} tablets",
                ("How many packs is that?", "How many full packs are needed?"),
            ),
        ),
    ),
    Chain(
        "split",
        ("the weight", "kg", (5, 6, 8, 10, 12, 20, 30, 40, 50, 60)),
        ("{p} weighs {n} kg.", "The chart of {p} shows {n} kg."),
        (
            Stage(
                *("the daily dose", "x", (3, 4, 5, 6, 8, 9, 10, 12), "mg"),
                ("{drug} is ordered at {n} mg per kg per day.",),
                "each kg needs {n} mg a day",
                ("How many mg of {drug} is that a day?", "What is the daily dose in mg?"),
                ("{p} should get {n} mg of {drug} a day.",),
            ),
            Stage(
                *("one dose", "/", TIMES, "mg"),
                ("It is split into {n} equal doses.", "The day is shared by {n} equal doses."),
                "the day has {n} equal doses",
                ("How many mg is each dose?", "What is each dose in mg?"),
                ("Each injection of {drug} for {p} is {n} mg.",),
            ),
            Stage(
                *("the reduced dose", "-", (5, 10, 15, 20), "mg"),
                ("For weak kidneys, each dose is cut by {n} mg.", "The doctor takes {n} mg off."),
                "{n} mg are taken off",
                ("How many mg is the reduced dose?", "What is the new dose in mg?"),
                ("After a reduction, {p} gets {n} mg of {drug} per dose.",),
            ),
            Stage(
                *("the injected volume", "/", (2, 4, 5, 10, 20), "mL"),
                ("The vial has {n} mg per mL.", "Each mL contains {n} mg."),
                "each mL has {n} mg",
                ("How many mL are injected?", "How many mL fill the syringe?"),
            ),
        ),
    ),
    Chain(
        "infusion",
        ("the order", "mg", (20, 40, 60, 80, 100, 120, 200, 300, 400, 500, 600)),
        ("{p} is to get {n} mg of {drug} by drip.", "An infusion for {p} holds {n} mg of {drug}."),
        (
            Stage(
                *("the drug volume", "/", (2, 4, 5, 10, 20, 50), "mL"),
                ("The vial has {n} mg per mL.", "The ampoule is {n} mg/mL."),
                "each mL has {n} mg",
                ("How many mL are drawn up?", "How many mL of {drug} go into the bag?"),
                ("A nurse draws up {n} mL of {drug} for {p}.",),
            ),
            Stage(
                *("the bag volume", "+", (20, 40, 50, 80, 90, 100, 200, 250, 500), "mL"),
                ("It is added to {n} mL of saline.", "It goes into {n} mL of glucose."),
                "{n} mL are in the bag already",
                ("How many mL are in the bag?", "What is the total volume in mL?"),
                ("The drip of {p} holds {n} mL.", "A bag of {n} mL hangs for {p}."),
            ),
            Stage(
                *("the rate", "/", (2, 3, 4, 5, 6, 8, 10, 12), "mL per hour"),
                ("It runs over {n} hours.", "It must be empty after {n} hours."),
                "it takes {n} hours",
                ("What is the rate in mL per hour?", "How many mL run in per hour?"),
                ("The pump of {p} runs at {n} mL per hour.",),
            ),
            Stage(
                *("the new rate", "-", (2, 4, 5, 10), "mL per hour"),
                (
                    "It is then slowed by {n} mL per hour.",
                    "For pain, it is lowered by {n} mL/hour.",
                ),
                "it is slowed by {n}",
                ("What is the new rate in mL per hour?",),
                ("The slowed drip of {p} runs at {n} mL per hour.",),
            ),
            Stage(
                *("the infused volume", "x", SMALL, "mL"),
                ("It stays so for {n} hours.", "{n} hours pass at this rate."),
                "{n} hours pass",
                ("How many mL run in during that time?",),
            ),
        ),
    ),
)
