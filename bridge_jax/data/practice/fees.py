"""Interest and fees: invented banks, whole dollars."""

from bridge_jax.data.practice.chain import Chain, Stage

WORDS = {
    "p": (
        *("Ada", "Boris", "Chen", "Dora", "Emil", "Fatima", "Goran", "Hana", "Ivan", "Julia"),
        *("Karim", "Lena", "Marta", "Nico", "Olga", "Paolo", "Quinn", "Rita", "Sven", "Tina"),
    ),
    "q": (
        *("North Bank", "City Savings", "Harbor Bank", "Green Credit", "First Union"),
        *("River Bank", "the credit union", "Alpine Bank", "Metro Lending", "Oak Finance"),
    ),
}

HUNDREDS = (100, 200, 300, 400, 500, 600, 700, 800, 900)
RATES = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12)
SMALL = (2, 3, 4, 5, 6)
COSTS = (5, 8, 10, 12, 15, 20, 25, 30, 40)
D = "dollars"

CHAINS = (
    Chain(
        "simple interest",
        ("the loan", D, HUNDREDS),
        ("{p} borrows {n} dollars from {q}.", "{q} lends {p} {n} dollars."),
        (
            Stage(
                *("the yearly interest", "%", RATES, D),
                ("Simple interest is {n}% a year.", "The yearly rate is {n}%, not compounded."),
                "one year costs {n}%",
                ("How many dollars is the interest for a year?", "What does one year cost?"),
                ("A loan of {q} costs {p} {n} dollars a year.", "{p} pays {n} dollars a year."),
            ),
            Stage(
                *("the total interest", "x", SMALL, D),
                ("The loan runs {n} years.", "{p} repays after {n} years."),
                "it runs {n} years",
                ("How many dollars is the interest in all?", "What is the total interest?"),
                ("The total interest of {p} at {q} is {n} dollars.",),
            ),
            Stage(
                *("the total cost", "+", COSTS, D),
                ("A closing fee is {n} dollars.", "{q} also charges {n} dollars once."),
                "a fee of {n} is added",
                ("What is the total cost in dollars?", "How many dollars does the loan cost?"),
                ("Interest and fee of {p} come to {n} dollars.",),
            ),
            Stage(
                *("one payment", "/", (2, 3, 4, 5, 6, 8, 10, 12), D),
                ("This cost is paid in {n} equal parts.", "{n} equal payments cover the cost."),
                "there are {n} payments",
                ("How many dollars is one payment?", "What is each payment in dollars?"),
                ("Each payment of {p} to {q} is {n} dollars.",),
            ),
            Stage(
                *("the payment after rebate", "-", (2, 3, 4, 5, 6, 8), D),
                ("Autopay takes {n} dollars off.", "A rebate of {n} dollars is given each time."),
                "{n} dollars are taken off",
                ("How many dollars is one payment then?", "What is paid each time?"),
            ),
        ),
    ),
    Chain(
        "late fee",
        ("the delay", "days", (2, 3, 4, 5, 6, 7, 8, 9, 10, 12)),
        ("{p} pays a bill {n} days late.", "A bill of {q} is paid {n} days late by {p}."),
        (
            Stage(
                *("the daily fee in all", "x", (2, 3, 4, 5, 6, 8, 10), D),
                ("Each late day costs {n} dollars.", "{q} charges {n} dollars a day."),
                "each day costs {n}",
                ("What is the fee in dollars?", "How many dollars do the days cost?"),
                ("Late days cost {p} {n} dollars at {q}.",),
            ),
            Stage(
                *("the whole fee", "+", COSTS, D),
                ("A reminder adds {n} dollars.", "There is also a flat fee of {n} dollars."),
                "a flat {n} is added",
                ("What is the whole fee in dollars?", "How many dollars are the fees?"),
                (
                    "The fees of {p} at {q} are {n} dollars.",
                    "{q} asks {p} for {n} dollars of fees.",
                ),
            ),
            Stage(
                *("the sum due", "+", (50, 60, 80, 100, 120, 150, 200, 300, 400), D),
                ("The bill itself is {n} dollars.", "The unpaid bill was {n} dollars."),
                "the bill of {n} is added",
                ("How many dollars are due in all?", "What is the sum due in dollars?"),
                ("{p} owes {q} {n} dollars in all.", "Bill and fees of {p} are {n} dollars."),
            ),
            Stage(
                *("the rest", "-", (10, 20, 30, 40, 50, 80, 100), D),
                ("A credit of {n} dollars is set off.", "{p} pays {n} dollars at once."),
                "{n} are taken off",
                ("How many dollars remain?", "What does {p} still owe?"),
                ("{p} still owes {q} {n} dollars.",),
            ),
            Stage(
                *("each share", "/", SMALL, D),
                ("{n} flatmates share this equally.", "It is shared by {n} partners."),
                "{n} people share it",
                ("How many dollars is each share?", "What does each person pay?"),
            ),
        ),
    ),
    Chain(
        "card",
        ("the balance", D, (200, 300, 400, 500, 600, 700, 800, 900, 1000)),
        ("The card balance of {p} is {n} dollars.", "{p} owes {n} dollars on a card of {q}."),
        (
            Stage(
                *("the unpaid balance", "-", HUNDREDS, D),
                ("{p} pays back {n} dollars.", "A payment of {n} dollars comes in."),
                "{n} are paid back",
                ("How many dollars are unpaid?", "What is the balance then?"),
                ("{p} has {n} dollars unpaid on a card of {q}.",),
            ),
            Stage(
                *("the interest", "%", (2, 3, 4, 5), D),
                ("{q} adds {n}% interest on this.", "Interest on the rest is {n}%."),
                "interest is {n}%",
                ("How many dollars is the interest?", "What interest is charged in dollars?"),
            ),
            Stage(
                *("the new balance", "prev+", (0,), D, ()),
                "interest is added to what is unpaid",
                ("What is the new balance in dollars?", "How many dollars are then owed?"),
                ("With interest, {p} owes {q} {n} dollars.",),
            ),
            Stage(
                *("the balance with fee", "+", COSTS, D),
                ("The yearly card fee is {n} dollars.", "A card fee of {n} dollars is booked."),
                "a fee of {n} is added",
                ("What does {p} owe in dollars?", "How many dollars is the balance with the fee?"),
            ),
        ),
    ),
    Chain(
        "discount",
        ("the price", D, HUNDREDS),
        ("An invoice to {p} is {n} dollars.", "{p} gets a bill of {n} dollars through {q}."),
        (
            Stage(
                *("the discount", "%", (2, 3, 4, 5, 10, 20), D),
                ("Early payment earns {n}% off.", "A discount of {n}% is granted."),
                "{n}% are taken off",
                ("How many dollars is the discount?", "What is saved in dollars?"),
            ),
            Stage(
                *("the reduced price", "prev-", (0,), D, ()),
                "the discount is taken from the price",
                ("How many dollars are paid?", "What is the reduced price in dollars?"),
                ("After a discount, {p} has to pay {n} dollars.",),
            ),
            Stage(
                *("the price with fee", "+", COSTS, D),
                ("The card fee is {n} dollars.", "{q} charges {n} dollars for the transfer."),
                "a fee of {n} is added",
                ("What is that with the fee in dollars?", "How many dollars leave the account?"),
                ("With fees, {p} has to pay {n} dollars through {q}.",),
            ),
            Stage(
                *("each part", "/", (2, 3, 4, 5, 6), D),
                ("It is paid in {n} equal parts.", "{n} partners share it."),
                "there are {n} parts",
                ("How many dollars is each part?", "What is one part in dollars?"),
            ),
        ),
    ),
)
