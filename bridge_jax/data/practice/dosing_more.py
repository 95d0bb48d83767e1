"""More chains of the dosing domain: insulin, limits, tapers, drops, inhalers, vials."""

from bridge_jax.data.practice.chain import Chain, Stage
from bridge_jax.data.practice.dosing import DAYS, SMALL, TIMES

CHAINS = (
    Chain(
        "insulin",
        ("the carbohydrate", "g", (30, 40, 45, 50, 60, 80, 90, 100, 120)),
        ("{p} eats {n} g of carbohydrate.", "A meal of {p} has {n} g of carbohydrate."),
        (
            Stage(
                *("the meal dose", "/", (5, 6, 8, 9, 10, 12, 15), "units"),
                ("One unit covers {n} g.", "{p} needs a unit of insulin per {n} g."),
                "one unit covers {n} g",
                ("How many units of insulin cover the meal?", "How many units are needed?"),
                ("{p} takes {n} units of insulin for a meal.",),
            ),
            Stage(
                *("the corrected dose", "+", (2, 3, 4, 5, 6), "units"),
                ("High sugar adds {n} units.", "A correction of {n} units is added."),
                "{n} units are added",
                ("How many units is the corrected dose?", "How many units is that in all?"),
                ("With the correction, {p} needs {n} units of insulin.",),
            ),
            Stage(
                *("the final dose", "-", (2, 3, 4), "units"),
                ("Sport takes off {n} units.", "Because of a run, {n} units are left out."),
                "{n} units are left out",
                ("How many units are injected?", "What is the final dose in units?"),
                ("{p} injects {n} units of insulin at each meal.",),
            ),
            Stage(
                *("the daily dose", "x", TIMES, "units"),
                ("There are {n} such meals a day.", "{p} does this {n} times a day."),
                "a day has {n} such meals",
                ("How many units is that a day?", "What is the daily total in units?"),
                ("{p} uses {n} units of insulin a day.",),
            ),
            Stage(
                *("the rest in the pen", "n-", (50, 80, 100, 150, 200, 300), "units"),
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
            Stage(
                *("the amount taken", "x", (20, 30, 40, 50, 100, 200), "mg"),
                ("Each tablet is {n} mg.", "A tablet contains {n} mg."),
                "each tablet has {n} mg",
                ("How many mg is that?", "How many mg did {p} take?"),
                ("So far today {p} took {n} mg of {drug}.",),
            ),
            Stage(
                *("the amount left", "n-", (100, 200, 300, 400, 500, 600, 800, 1000), "mg"),
                ("The limit is {n} mg a day.", "No more than {n} mg a day is safe."),
                "the limit is {n} mg",
                ("How many mg may {p} still take?", "How many mg are left today?"),
                ("{p} may still take {n} mg of {drug} today.",),
            ),
            Stage(
                *("each later dose", "/", (2, 3, 4, 5), "mg"),
                ("It is shared by {n} more doses.", "{n} equal doses follow."),
                "{n} doses share it",
                ("How many mg is each later dose?",),
                ("Each later dose of {drug} for {p} is {n} mg.",),
            ),
            Stage(
                *("the syrup volume", "/", (2, 4, 5, 10, 20), "mL"),
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
            Stage(
                *("the total cut", "x", (2, 5, 10, 15, 20), "mg"),
                ("Every week takes {n} mg off the dose.", "The dose falls by {n} mg a week."),
                "each week cuts {n} mg",
                ("By how many mg did the dose fall?", "What is the total cut in mg?"),
                ("The dose of {drug} for {p} was cut by {n} mg.",),
            ),
            Stage(
                *("the dose now", "n-", (40, 50, 60, 80, 100, 120, 200), "mg"),
                ("The first dose was {n} mg.", "It began at {n} mg."),
                "it began at {n} mg",
                ("How many mg is the dose now?", "What is the present dose in mg?"),
                ("After a taper, {p} takes {n} mg of {drug}.",),
            ),
            Stage(
                *("the dose in tablets", "/", (5, 10, 20), "tablets"),
                ("A tablet has {n} mg.", "Only {n} mg tablets are left."),
                "each tablet has {n} mg",
                ("How many tablets is that?", "How many tablets does {p} take now?"),
                ("{p} now takes {n} tablets of {drug} each day.",),
            ),
            Stage(
                *("the total", "x", DAYS, ""),
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
            Stage(
                *("the count each time", "x", (2,), ""),
                ("Both eyes are treated.", "The order is for both eyes."),
                "there are 2 eyes",
                ("How many drops are used each time?",),
                ("{p} uses {n} eye drops each time.",),
            ),
            Stage(
                *("the daily count", "x", (2, 3, 4, 5), ""),
                ("This is done {n} times a day.", "It is repeated {n} times daily."),
                "a day has {n} rounds",
                ("How many drops is that a day?", "How many drops are used daily?"),
                ("{p} needs {n} eye drops a day.",),
            ),
            Stage(
                *("the total", "x", (5, 6, 7, 8, 10, 20, 30), ""),
                ("Treatment takes {n} days.", "The order runs for {n} days."),
                "treatment takes {n} days",
                ("How many drops is that in all?", "How many drops are used in total?"),
                ("In all, {p} needs {n} eye drops.",),
            ),
            Stage(
                *("the volume", "/", (10, 20, 30, 40), "mL"),
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
            Stage(
                *("the daily use", "x", TIMES, ""),
                ("The inhaler is used {n} times a day.", "That happens {n} times daily."),
                "a day has {n} uses",
                ("How many puffs is that a day?",),
                ("{p} needs {n} puffs a day.", "{n} inhaler puffs a day keep {p} well."),
            ),
            Stage(
                *("the time it lasts", "n/", (20, 30, 40, 50, 60, 80, 90, 100, 120, 200), "days"),
                ("The canister holds {n} puffs.", "A new inhaler has {n} puffs."),
                "it holds {n} puffs",
                ("How many days does it last?", "After how many days is it empty?"),
                ("The inhaler of {p} lasts {n} days.",),
            ),
            Stage(
                *("the rest", "-", (2, 3, 5, 6, 8, 10), "days"),
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
            Stage(
                *("the maintenance total", "x", (2, 3, 4, 5, 6, 8, 10), "mg"),
                ("{n} such doses are planned.", "The plan has {n} of these doses."),
                "there are {n} doses",
                ("How many mg is that in all?", "What is the planned total in mg?"),
                ("The planned doses of {drug} for {p} total {n} mg.",),
            ),
            Stage(
                *("the total with loading", "+", (20, 30, 40, 50, 60, 80, 100), "mg"),
                ("A loading dose of {n} mg comes first.", "Before that, {n} mg load the blood."),
                "loading needs {n} mg more",
                ("How many mg is that with the loading dose?",),
                ("With its loading dose, the {drug} of {p} comes to {n} mg.",),
            ),
            Stage(
                *("the vial count", "/", (10, 20, 30, 40, 50, 100), ""),
                ("A vial has {n} mg.", "It comes in vials of {n} mg."),
                "each vial has {n} mg",
                ("How many vials are used?", "How many vials is that?"),
                ("{p} uses {n} vials of {drug}.",),
            ),
            Stage(
                *("the full count", "+", SMALL, ""),
                ("{n} spare vials are kept too.", "The nurse wants {n} spares as well."),
                "{n} spares are added",
                ("How many vials must be fetched?",),
            ),
        ),
    ),
)
