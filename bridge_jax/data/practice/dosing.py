"""Medication dosing: invented drugs, and numbers chosen for easy arithmetic, not for patients."""

from bridge_jax.data.practice.chain import Chain, Link

WORDS = {
    "p": (
        "Ana", "Ben", "Carla", "Dev", "Elif", "Femi", "Grace", "Hugo", "Ines", "Jonas",
        "Kemi", "Liam", "Mina", "Noor", "Omar", "Petra", "Rosa", "Sam", "Tara", "Yusuf",
    ),
    "drug": (
        "Veltra", "Solmin", "Corvex", "Ralin", "Bremol", "Lumera",
        "Mirol", "Norvit", "Zelan", "Tamrin", "Ostra", "Pelor",
    ),
}  # fmt: skip

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
            Link(
                ("the dose", "x", (2, 3, 4, 5, 6, 8, 10, 12), "mg"),
                ("The order is {drug} {n} mg per kg.", "{drug} is dosed at {n} mg/kg."),
                "each kg needs {n} mg",
                ("How many mg is one dose?", "What is the single dose in mg?"),
                ("{p} needs {n} mg of {drug} per dose.", "One dose of {drug} for {p} is {n} mg."),
            ),
            Link(
                ("the volume", "/", (2, 3, 4, 5, 6, 8, 10, 12, 20), "mL"),
                ("The syrup has {n} mg per mL.", "Its strength is {n} mg/mL."),
                "each mL holds {n} mg",
                ("How many mL is one dose?", "How many mL should be measured per dose?"),
                ("{p} takes {n} mL of {drug} syrup per dose.", "Each dose for {p} is {n} mL."),
            ),
            Link(
                ("the daily volume", "x", TIMES, "mL"),
                _TIMES_A_DAY,
                "a day has {n} doses",
                ("How many mL is that a day?", "What is the daily volume in mL?"),
                ("{p} drinks {n} mL of {drug} syrup a day.",),
            ),
            Link(
                ("the course volume", "x", DAYS, "mL"),
                _FOR_DAYS,
                "the course has {n} days",
                ("How many mL does the whole course need?", "What is the total volume in mL?"),
                ("The whole course of {drug} for {p} is {n} mL.",),
            ),
            Link(
                ("the number of bottles", "/", (10, 20, 30, 40, 50, 60, 100), ""),
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
            Link(
                ("the dose in tablets", "/", (5, 10, 20, 25, 30, 40, 50, 100, 200), "tablets"),
                ("One tablet has {n} mg.", "The pharmacy has {n} mg tablets."),
                "each tablet has {n} mg",
                ("How many tablets make one dose?", "How many tablets are given per dose?"),
                ("{p} swallows {n} tablets of {drug} per dose.",),
            ),
            Link(
                ("the daily count", "x", TIMES, "tablets"),
                _TIMES_A_DAY,
                "a day has {n} doses",
                ("How many tablets is that a day?", "How many tablets does {p} take daily?"),
                ("{p} takes {n} {drug} tablets a day.",),
            ),
            Link(
                ("the course count", "x", DAYS, "tablets"),
                _FOR_DAYS,
                "the course has {n} days",
                ("How many tablets does the course need?", "How many tablets is that in all?"),
                ("The course for {p} needs {n} {drug} tablets.",),
            ),
            Link(
                ("the count to order", "-", (2, 4, 5, 6, 8, 10, 12, 20), "tablets"),
                ("{p} still has {n} at home.", "The ward already holds {n} of them."),
                "{n} are already there",
                ("How many tablets must be ordered?", "How many more tablets are needed?"),
                ("{n} {drug} tablets must be ordered for {p}.",),
            ),
            Link(
                ("the number of packs", "/", (5, 6, 8, 10, 12, 20), ""),
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
            Link(
                ("the daily dose", "x", (3, 4, 5, 6, 8, 9, 10, 12), "mg"),
                ("{drug} is ordered at {n} mg per kg per day.",),
                "each kg needs {n} mg a day",
                ("How many mg of {drug} is that a day?", "What is the daily dose in mg?"),
                ("{p} should get {n} mg of {drug} a day.",),
            ),
            Link(
                ("one dose", "/", TIMES, "mg"),
                ("It is split into {n} equal doses.", "The day is shared by {n} equal doses."),
                "the day has {n} equal doses",
                ("How many mg is each dose?", "What is each dose in mg?"),
                ("Each injection of {drug} for {p} is {n} mg.",),
            ),
            Link(
                ("the reduced dose", "-", (5, 10, 15, 20), "mg"),
                ("For weak kidneys, each dose is cut by {n} mg.", "The doctor takes {n} mg off."),
                "{n} mg are taken off",
                ("How many mg is the reduced dose?", "What is the new dose in mg?"),
                ("After a reduction, {p} gets {n} mg of {drug} per dose.",),
            ),
            Link(
                ("the injected volume", "/", (2, 4, 5, 10, 20), "mL"),
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
            Link(
                ("the drug volume", "/", (2, 4, 5, 10, 20, 50), "mL"),
                ("The vial has {n} mg per mL.", "The ampoule is {n} mg/mL."),
                "each mL has {n} mg",
                ("How many mL are drawn up?", "How many mL of {drug} go into the bag?"),
                ("A nurse draws up {n} mL of {drug} for {p}.",),
            ),
            Link(
                ("the bag volume", "+", (20, 40, 50, 80, 90, 100, 200, 250, 500), "mL"),
                ("It is added to {n} mL of saline.", "It goes into {n} mL of glucose."),
                "{n} mL are in the bag already",
                ("How many mL are in the bag?", "What is the total volume in mL?"),
                ("The drip of {p} holds {n} mL.", "A bag of {n} mL hangs for {p}."),
            ),
            Link(
                ("the rate", "/", (2, 3, 4, 5, 6, 8, 10, 12), "mL per hour"),
                ("It runs over {n} hours.", "It must be empty after {n} hours."),
                "it takes {n} hours",
                ("What is the rate in mL per hour?", "How many mL run in per hour?"),
                ("The pump of {p} runs at {n} mL per hour.",),
            ),
            Link(
                ("the new rate", "-", (2, 4, 5, 10), "mL per hour"),
                (
                    "It is then slowed by {n} mL per hour.",
                    "For pain, it is lowered by {n} mL/hour.",
                ),
                "it is slowed by {n}",
                ("What is the new rate in mL per hour?",),
                ("The slowed drip of {p} runs at {n} mL per hour.",),
            ),
            Link(
                ("the infused volume", "x", SMALL, "mL"),
                ("It stays so for {n} hours.", "{n} hours pass at this rate."),
                "{n} hours pass",
                ("How many mL run in during that time?",),
            ),
        ),
    ),
    Chain(
        "insulin",
        ("the carbohydrate", "g", (30, 40, 45, 50, 60, 80, 90, 100, 120)),
        ("{p} eats {n} g of carbohydrate.", "A meal of {p} has {n} g of carbohydrate."),
        (
            Link(
                ("the meal dose", "/", (5, 6, 8, 9, 10, 12, 15), "units"),
                ("One unit covers {n} g.", "{p} needs a unit of insulin per {n} g."),
                "one unit covers {n} g",
                ("How many units of insulin cover the meal?", "How many units are needed?"),
                ("{p} takes {n} units of insulin for a meal.",),
            ),
            Link(
                ("the corrected dose", "+", (2, 3, 4, 5, 6), "units"),
                ("High sugar adds {n} units.", "A correction of {n} units is added."),
                "{n} units are added",
                ("How many units is the corrected dose?", "How many units is that in all?"),
                ("With the correction, {p} needs {n} units of insulin.",),
            ),
            Link(
                ("the final dose", "-", (2, 3, 4), "units"),
                ("Sport takes off {n} units.", "Because of a run, {n} units are left out."),
                "{n} units are left out",
                ("How many units are injected?", "What is the final dose in units?"),
                ("{p} injects {n} units of insulin at each meal.",),
            ),
            Link(
                ("the daily dose", "x", TIMES, "units"),
                ("There are {n} such meals a day.", "{p} does this {n} times a day."),
                "a day has {n} such meals",
                ("How many units is that a day?", "What is the daily total in units?"),
                ("{p} uses {n} units of insulin a day.",),
            ),
            Link(
                ("the rest in the pen", "n-", (50, 80, 100, 150, 200, 300), "units"),
                ("The pen holds {n} units.", "A fresh pen has {n} units."),
                "the pen holds {n} units",
                ("How many units are left in the pen after a day?",),
            ),
        ),
    ),
    Chain(
        "limit",
        ("the tablets taken", "", (2, 3, 4, 5, 6)),
        ("Today {p} took {n} tablets of {drug}.", "{p} has had {n} {drug} tablets today."),
        (
            Link(
                ("the amount taken", "x", (20, 30, 40, 50, 100, 200), "mg"),
                ("Each tablet is {n} mg.", "A tablet contains {n} mg."),
                "each tablet has {n} mg",
                ("How many mg is that?", "How many mg did {p} take?"),
                ("So far today {p} took {n} mg of {drug}.",),
            ),
            Link(
                ("the amount left", "n-", (100, 200, 300, 400, 500, 600, 800, 1000), "mg"),
                ("The limit is {n} mg a day.", "No more than {n} mg a day is safe."),
                "the limit is {n} mg",
                ("How many mg may {p} still take?", "How many mg are left today?"),
                ("{p} may still take {n} mg of {drug} today.",),
            ),
            Link(
                ("each later dose", "/", (2, 3, 4, 5), "mg"),
                ("It is shared by {n} more doses.", "{n} equal doses follow."),
                "{n} doses share it",
                ("How many mg is each later dose?",),
                ("Each later dose of {drug} for {p} is {n} mg.",),
            ),
            Link(
                ("the syrup volume", "/", (2, 4, 5, 10, 20), "mL"),
                ("Now a syrup of {n} mg per mL is used.",),
                "each mL has {n} mg",
                ("How many mL of syrup is that?", "How many mL are measured?"),
            ),
        ),
    ),
    Chain(
        "taper",
        ("the time", "weeks", (2, 3, 4, 5, 6)),
        ("{p} has tapered {drug} for {n} weeks.", "{n} weeks ago {p} began to reduce {drug}."),
        (
            Link(
                ("the total cut", "x", (2, 5, 10, 15, 20), "mg"),
                ("Every week takes {n} mg off the dose.", "The dose falls by {n} mg a week."),
                "each week cuts {n} mg",
                ("By how many mg did the dose fall?", "What is the total cut in mg?"),
                ("The dose of {drug} for {p} was cut by {n} mg.",),
            ),
            Link(
                ("the dose now", "n-", (40, 50, 60, 80, 100, 120, 200), "mg"),
                ("The first dose was {n} mg.", "It began at {n} mg."),
                "it began at {n} mg",
                ("How many mg is the dose now?", "What is the present dose in mg?"),
                ("After a taper, {p} takes {n} mg of {drug}.",),
            ),
            Link(
                ("the dose in tablets", "/", (5, 10, 20), "tablets"),
                ("A tablet has {n} mg.", "Only {n} mg tablets are left."),
                "each tablet has {n} mg",
                ("How many tablets is that?", "How many tablets does {p} take now?"),
                ("{p} now takes {n} tablets of {drug} each day.",),
            ),
            Link(
                ("the total", "x", DAYS, ""),
                ("This dose stays for {n} days.", "It is kept up for {n} days."),
                "it lasts {n} days",
                ("How many tablets are needed for that time?",),
            ),
        ),
    ),
    Chain(
        "drops",
        ("the drops for one eye", "", (2, 3, 4)),
        ("{p} puts {n} drops into each eye.", "An eye of {p} gets {n} drops at a time."),
        (
            Link(
                ("the count each time", "x", (2,), ""),
                ("Both eyes are treated.", "The order is for both eyes."),
                "there are 2 eyes",
                ("How many drops are used each time?",),
                ("{p} uses {n} eye drops each time.",),
            ),
            Link(
                ("the daily count", "x", (2, 3, 4, 5), ""),
                ("This is done {n} times a day.", "It is repeated {n} times daily."),
                "a day has {n} rounds",
                ("How many drops is that a day?", "How many drops are used daily?"),
                ("{p} needs {n} eye drops a day.",),
            ),
            Link(
                ("the total", "x", (5, 6, 7, 8, 10, 20, 30), ""),
                ("Treatment takes {n} days.", "The order runs for {n} days."),
                "treatment takes {n} days",
                ("How many drops is that in all?", "How many drops are used in total?"),
                ("In all, {p} needs {n} eye drops.",),
            ),
            Link(
                ("the volume", "/", (10, 20, 30, 40), "mL"),
                ("{n} drops make 1 mL.", "There are {n} drops in a mL."),
                "{n} drops make 1 mL",
                ("How many mL is that?", "How many mL must the bottle hold?"),
            ),
        ),
    ),
    Chain(
        "inhaler",
        ("the puffs at a time", "", (2, 3, 4)),
        ("{p} breathes in {n} puffs at a time.", "One use of the inhaler of {p} is {n} puffs."),
        (
            Link(
                ("the daily use", "x", TIMES, ""),
                ("The inhaler is used {n} times a day.", "That happens {n} times daily."),
                "a day has {n} uses",
                ("How many puffs is that a day?",),
                ("{p} needs {n} puffs a day.", "{n} inhaler puffs a day keep {p} well."),
            ),
            Link(
                ("the time it lasts", "n/", (20, 30, 40, 50, 60, 80, 90, 100, 120, 200), "days"),
                ("The canister holds {n} puffs.", "A new inhaler has {n} puffs."),
                "it holds {n} puffs",
                ("How many days does it last?", "After how many days is it empty?"),
                ("The inhaler of {p} lasts {n} days.",),
            ),
            Link(
                ("the rest", "-", (2, 3, 5, 6, 8, 10), "days"),
                ("{p} opened it {n} days ago.", "{n} days have gone by."),
                "{n} days are over",
                ("How many days are left?", "For how many more days is there enough?"),
            ),
        ),
    ),
    Chain(
        "vials",
        ("the maintenance dose", "mg", (10, 15, 20, 30, 40, 50, 60)),
        ("{p} gets {n} mg of {drug} at a time.", "A {drug} injection for {p} is {n} mg."),
        (
            Link(
                ("the maintenance total", "x", (2, 3, 4, 5, 6, 8, 10), "mg"),
                ("{n} such doses are planned.", "The plan has {n} of these doses."),
                "there are {n} doses",
                ("How many mg is that in all?", "What is the planned total in mg?"),
                ("The planned doses of {drug} for {p} total {n} mg.",),
            ),
            Link(
                ("the total with loading", "+", (20, 30, 40, 50, 60, 80, 100), "mg"),
                ("A loading dose of {n} mg comes first.", "Before that, {n} mg load the blood."),
                "loading needs {n} mg more",
                ("How many mg is that with the loading dose?",),
                ("With its loading dose, the {drug} of {p} comes to {n} mg.",),
            ),
            Link(
                ("the vial count", "/", (10, 20, 30, 40, 50, 100), ""),
                ("A vial has {n} mg.", "It comes in vials of {n} mg."),
                "each vial has {n} mg",
                ("How many vials are used?", "How many vials is that?"),
                ("{p} uses {n} vials of {drug}.",),
            ),
            Link(
                ("the full count", "+", SMALL, ""),
                ("{n} spare vials are kept too.", "The nurse wants {n} spares as well."),
                "{n} spares are added",
                ("How many vials must be fetched?",),
            ),
        ),
    ),
)
