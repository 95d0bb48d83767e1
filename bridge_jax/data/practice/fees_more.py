"""More chains of the fees domain: instalments, accounts, exchange, commission, savings."""

from bridge_jax.data.practice.chain import Chain, Stage
from bridge_jax.data.practice.fees import COSTS, HUNDREDS, RATES, SMALL, D

CHAINS = (
    Chain(
        "instalments",
        ("the years", "", (2, 3, 4, 5)),
        ("{p} repays {q} over {n} years.", "A loan of {q} to {p} runs {n} years."),
        (
            Stage(
                *("the number of payments", "x", (4, 12), ""),
                ("There are {n} payments a year.", "{p} pays {n} times a year."),
                "each year has {n} payments",
                ("How many payments is that?", "How many times does {p} pay?"),
                ("{p} repays {q} in {n} payments.", "A loan of {q} takes {p} {n} payments."),
            ),
            Stage(
                *("the sum paid", "x", (10, 20, 30, 40, 50), D),
                ("Each payment is {n} dollars.", "One payment costs {n} dollars."),
                "each payment is {n}",
                ("How many dollars are paid in all?", "What is the sum of all payments?"),
                ("In all, {p} pays {q} {n} dollars.", "All payments of {p} add up to {n} dollars."),
            ),
            Stage(
                *("the interest", "-", (100, 150, 200, 250, 300, 400, 500, 600, 700, 800), D),
                ("The loan was {n} dollars.", "{p} had borrowed {n} dollars."),
                "{n} were borrowed",
                ("How many dollars of that is interest?", "What was paid on top of the loan?"),
                ("On top of the loan, {p} pays {q} {n} dollars.",),
            ),
            Stage(
                *("the cost of credit", "+", COSTS, D),
                ("Opening the loan cost {n} dollars.", "A fee of {n} dollars came first."),
                "a fee of {n} is added",
                ("What did the credit cost in dollars?", "How many dollars is that with the fee?"),
                ("Credit from {q} costs {p} {n} dollars.",),
            ),
            Stage(
                *("the cost for each", "/", SMALL, D),
                ("{n} owners share the cost.", "The cost is split by {n} people."),
                "{n} people share it",
                ("How many dollars does each one bear?",),
            ),
        ),
    ),
    Chain(
        "account",
        ("the time", "months", (2, 3, 4, 5, 6, 8, 10, 12)),
        ("{p} keeps an account at {q} for {n} months.", "For {n} months {p} banks with {q}."),
        (
            Stage(
                *("the basic cost", "x", (2, 3, 4, 5, 6, 7, 8, 9, 10), D),
                ("It costs {n} dollars a month.", "The monthly fee is {n} dollars."),
                "each month costs {n}",
                ("How many dollars are the monthly fees?", "What does the account cost?"),
                ("{q} takes {n} dollars of monthly fees from {p}.",),
            ),
            Stage(
                *("the cost after refund", "-", COSTS, D),
                ("{q} refunds {n} dollars.", "A refund of {n} dollars is given."),
                "{n} are refunded",
                ("How many dollars of fees remain?", "What are the fees after the refund?"),
                ("After a refund, {p} owes {q} {n} dollars of fees.",),
            ),
            Stage(
                *("the whole cost", "+", COSTS, D),
                ("Paper letters cost {n} dollars.", "A new card costs {n} dollars."),
                "{n} are added",
                ("How many dollars are all fees?", "What are the fees in all?"),
                ("All fees of {p} at {q} are {n} dollars.",),
            ),
            Stage(
                *("the balance", "n-", (100, 120, 150, 200, 300, 400, 500), D),
                ("The account holds {n} dollars.", "{p} had saved {n} dollars."),
                "the account holds {n}",
                ("How many dollars are left after fees?", "What is the balance after fees?"),
                ("After fees, {p} has {n} dollars at {q}.",),
            ),
            Stage(
                *("the balance after gift", "+", (20, 30, 40, 50, 100), D),
                ("A bonus of {n} dollars is paid in.", "{q} gives a gift of {n} dollars."),
                "{n} are paid in",
                ("What is the balance in the end?", "How many dollars are there then?"),
            ),
        ),
    ),
    Chain(
        "exchange",
        ("the amount", "euros", (10, 20, 30, 40, 50, 60, 80, 100, 200, 300)),
        ("{p} changes {n} euros at {q}.", "{q} changes {n} euros for {p}."),
        (
            Stage(
                *("the gross amount", "x", (2, 3, 4, 5, 6, 8, 9), "crowns"),
                ("One euro buys {n} crowns.", "The rate is {n} crowns per euro."),
                "a euro buys {n} crowns",
                ("How many crowns is that?", "How many crowns does {p} get before fees?"),
                ("{q} owes {p} {n} crowns before fees.",),
            ),
            Stage(
                *("the net amount", "-", COSTS, "crowns"),
                ("The fee is {n} crowns.", "{q} keeps {n} crowns as a fee."),
                "the fee is {n}",
                ("How many crowns does {p} get?", "How many crowns are paid out?"),
                ("After fees, {p} gets {n} crowns from {q}.",),
            ),
            Stage(
                *("each share", "/", SMALL, "crowns"),
                ("{n} friends share them.", "They are split by {n} travellers."),
                "{n} people share them",
                ("How many crowns does each get?", "How many crowns is each share?"),
            ),
        ),
    ),
    Chain(
        "commission",
        ("the sale", D, HUNDREDS),
        ("{p} sells bonds for {n} dollars.", "{p} sells funds of {q} for {n} dollars."),
        (
            Stage(
                *("the commission", "%", RATES, D),
                ("The commission is {n}%.", "{q} pays {n}% commission."),
                "{n}% are paid",
                ("How many dollars is the commission?", "What is the commission in dollars?"),
                ("{q} pays {p} a commission of {n} dollars.",),
            ),
            Stage(
                *("the month's commission", "x", SMALL, D),
                ("{p} makes {n} such sales.", "This happens {n} times in a month."),
                "there are {n} such sales",
                ("How many dollars is that in all?", "What is the month's commission?"),
                ("{p} earns {n} dollars of commission in a month.",),
            ),
            Stage(
                *("the pay after desk fee", "-", COSTS, D),
                ("A desk costs {n} dollars.", "{q} keeps {n} dollars for the desk."),
                "{n} go for the desk",
                ("How many dollars are left?", "What is left after the desk fee?"),
                ("After costs, {q} pays {p} {n} dollars a month.",),
            ),
            Stage(
                *("the pay over months", "x", SMALL, D),
                ("This goes on for {n} months.", "{n} months go the same way."),
                "there are {n} months",
                ("How many dollars is that over all months?",),
            ),
        ),
    ),
    Chain(
        "savings",
        ("the deposit", D, (10, 20, 30, 40, 50, 60)),
        ("{p} puts {n} dollars a month into {q}.", "Each month {p} saves {n} dollars at {q}."),
        (
            Stage(
                *("the sum saved", "x", (2, 3, 4, 5, 6, 8, 10, 12), D),
                ("This lasts {n} months.", "{n} months pass."),
                "{n} months pass",
                ("How many dollars are saved?", "What is saved in dollars?"),
                ("{p} has saved {n} dollars at {q}.",),
            ),
            Stage(
                *("the sum with interest", "+", COSTS, D),
                ("Interest brings {n} dollars.", "{q} pays {n} dollars of interest."),
                "interest adds {n}",
                ("How many dollars is that with interest?", "What does {p} have then?"),
                ("With interest, {p} has {n} dollars at {q}.",),
            ),
            Stage(
                *("the missing sum", "n-", (*HUNDREDS, 1000), D),
                ("The goal is {n} dollars.", "A course costs {n} dollars."),
                "{n} are needed",
                ("How many dollars are missing?", "What is still missing in dollars?"),
                ("{p} is {n} dollars short of a goal.",),
            ),
            Stage(
                *("the further payment", "/", (2, 3, 4, 5, 6, 10), D),
                ("{n} equal payments close the gap.", "The gap is closed in {n} equal parts."),
                "{n} payments share it",
                ("How many dollars is each?", "What is each payment in dollars?"),
            ),
        ),
    ),
    Chain(
        "transfers",
        ("the transfers", "", (2, 3, 4, 5, 6, 7, 8, 9, 10)),
        ("{p} makes {n} transfers at {q}.", "{q} carries out {n} transfers for {p}."),
        (
            Stage(
                *("the transfer cost", "x", (2, 3, 4, 5, 6, 8), D),
                ("Each costs {n} dollars.", "{q} takes {n} dollars for each."),
                "each costs {n}",
                ("How many dollars is that?", "What are the fees in dollars?"),
                ("Transfers cost {p} {n} dollars at {q}.",),
            ),
            Stage(
                *("the monthly cost", "+", COSTS, D),
                ("The account costs {n} dollars more.", "A base fee of {n} dollars is added."),
                "a base fee of {n} is added",
                ("How many dollars is that in all?", "What does the month cost?"),
                ("{p} pays {q} {n} dollars of fees a month.",),
            ),
            Stage(
                *("the cost over time", "x", SMALL, D),
                ("{n} months are the same.", "This goes on for {n} months."),
                "there are {n} months",
                ("How many dollars are the fees over all months?",),
            ),
        ),
    ),
)
