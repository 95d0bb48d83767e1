"""Interest and fees: invented banks, whole dollars."""

from bridge_jax.data.practice.chain import Chain, Link

WORDS = {
    "p": (
        "Ada", "Boris", "Chen", "Dora", "Emil", "Fatima", "Goran", "Hana", "Ivan", "Julia",
        "Karim", "Lena", "Marta", "Nico", "Olga", "Paolo", "Quinn", "Rita", "Sven", "Tina",
    ),
    "q": (
        "North Bank", "City Savings", "Harbor Bank", "Green Credit", "First Union",
        "River Bank", "the credit union", "Alpine Bank", "Metro Lending", "Oak Finance",
    ),
}  # fmt: skip

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
            Link(
                ("the yearly interest", "%", RATES, D),
                ("Simple interest is {n}% a year.", "The yearly rate is {n}%, not compounded."),
                "one year costs {n}%",
                ("How many dollars is the interest for a year?", "What does one year cost?"),
                ("A loan of {q} costs {p} {n} dollars a year.", "{p} pays {n} dollars a year."),
            ),
            Link(
                ("the total interest", "x", SMALL, D),
                ("The loan runs {n} years.", "{p} repays after {n} years."),
                "it runs {n} years",
                ("How many dollars is the interest in all?", "What is the total interest?"),
                ("The total interest of {p} at {q} is {n} dollars.",),
            ),
            Link(
                ("the total cost", "+", COSTS, D),
                ("A closing fee is {n} dollars.", "{q} also charges {n} dollars once."),
                "a fee of {n} is added",
                ("What is the total cost in dollars?", "How many dollars does the loan cost?"),
                ("Interest and fee of {p} come to {n} dollars.",),
            ),
            Link(
                ("one payment", "/", (2, 3, 4, 5, 6, 8, 10, 12), D),
                ("This cost is paid in {n} equal parts.", "{n} equal payments cover the cost."),
                "there are {n} payments",
                ("How many dollars is one payment?", "What is each payment in dollars?"),
                ("Each payment of {p} to {q} is {n} dollars.",),
            ),
            Link(
                ("the payment after rebate", "-", (2, 3, 4, 5, 6, 8), D),
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
            Link(
                ("the daily fee in all", "x", (2, 3, 4, 5, 6, 8, 10), D),
                ("Each late day costs {n} dollars.", "{q} charges {n} dollars a day."),
                "each day costs {n}",
                ("What is the fee in dollars?", "How many dollars do the days cost?"),
                ("Late days cost {p} {n} dollars at {q}.",),
            ),
            Link(
                ("the whole fee", "+", COSTS, D),
                ("A reminder adds {n} dollars.", "There is also a flat fee of {n} dollars."),
                "a flat {n} is added",
                ("What is the whole fee in dollars?", "How many dollars are the fees?"),
                (
                    "The fees of {p} at {q} are {n} dollars.",
                    "{q} asks {p} for {n} dollars of fees.",
                ),
            ),
            Link(
                ("the sum due", "+", (50, 60, 80, 100, 120, 150, 200, 300, 400), D),
                ("The bill itself is {n} dollars.", "The unpaid bill was {n} dollars."),
                "the bill of {n} is added",
                ("How many dollars are due in all?", "What is the sum due in dollars?"),
                ("{p} owes {q} {n} dollars in all.", "Bill and fees of {p} are {n} dollars."),
            ),
            Link(
                ("the rest", "-", (10, 20, 30, 40, 50, 80, 100), D),
                ("A credit of {n} dollars is set off.", "{p} pays {n} dollars at once."),
                "{n} are taken off",
                ("How many dollars remain?", "What does {p} still owe?"),
                ("{p} still owes {q} {n} dollars.",),
            ),
            Link(
                ("each share", "/", SMALL, D),
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
            Link(
                ("the unpaid balance", "-", HUNDREDS, D),
                ("{p} pays back {n} dollars.", "A payment of {n} dollars comes in."),
                "{n} are paid back",
                ("How many dollars are unpaid?", "What is the balance then?"),
                ("{p} has {n} dollars unpaid on a card of {q}.",),
            ),
            Link(
                ("the interest", "%", (2, 3, 4, 5), D),
                ("{q} adds {n}% interest on this.", "Interest on the rest is {n}%."),
                "interest is {n}%",
                ("How many dollars is the interest?", "What interest is charged in dollars?"),
            ),
            Link(
                ("the new balance", "prev+", (0,), D),
                (),
                "interest is added to what is unpaid",
                ("What is the new balance in dollars?", "How many dollars are then owed?"),
                ("With interest, {p} owes {q} {n} dollars.",),
            ),
            Link(
                ("the balance with fee", "+", COSTS, D),
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
            Link(
                ("the discount", "%", (2, 3, 4, 5, 10, 20), D),
                ("Early payment earns {n}% off.", "A discount of {n}% is granted."),
                "{n}% are taken off",
                ("How many dollars is the discount?", "What is saved in dollars?"),
            ),
            Link(
                ("the reduced price", "prev-", (0,), D),
                (),
                "the discount is taken from the price",
                ("How many dollars are paid?", "What is the reduced price in dollars?"),
                ("After a discount, {p} has to pay {n} dollars.",),
            ),
            Link(
                ("the price with fee", "+", COSTS, D),
                ("The card fee is {n} dollars.", "{q} charges {n} dollars for the transfer."),
                "a fee of {n} is added",
                ("What is that with the fee in dollars?", "How many dollars leave the account?"),
                ("With fees, {p} has to pay {n} dollars through {q}.",),
            ),
            Link(
                ("each part", "/", (2, 3, 4, 5, 6), D),
                ("It is paid in {n} equal parts.", "{n} partners share it."),
                "there are {n} parts",
                ("How many dollars is each part?", "What is one part in dollars?"),
            ),
        ),
    ),
    Chain(
        "instalments",
        ("the years", "", (2, 3, 4, 5)),
        ("{p} repays {q} over {n} years.", "A loan of {q} to {p} runs {n} years."),
        (
            Link(
                ("the number of payments", "x", (4, 12), ""),
                ("There are {n} payments a year.", "{p} pays {n} times a year."),
                "each year has {n} payments",
                ("How many payments is that?", "How many times does {p} pay?"),
                ("{p} repays {q} in {n} payments.", "A loan of {q} takes {p} {n} payments."),
            ),
            Link(
                ("the sum paid", "x", (10, 20, 30, 40, 50), D),
                ("Each payment is {n} dollars.", "One payment costs {n} dollars."),
                "each payment is {n}",
                ("How many dollars are paid in all?", "What is the sum of all payments?"),
                ("In all, {p} pays {q} {n} dollars.", "All payments of {p} add up to {n} dollars."),
            ),
            Link(
                ("the interest", "-", (100, 150, 200, 250, 300, 400, 500, 600, 700, 800), D),
                ("The loan was {n} dollars.", "{p} had borrowed {n} dollars."),
                "{n} were borrowed",
                ("How many dollars of that is interest?", "What was paid on top of the loan?"),
                ("On top of the loan, {p} pays {q} {n} dollars.",),
            ),
            Link(
                ("the cost of credit", "+", COSTS, D),
                ("Opening the loan cost {n} dollars.", "A fee of {n} dollars came first."),
                "a fee of {n} is added",
                ("What did the credit cost in dollars?", "How many dollars is that with the fee?"),
                ("Credit from {q} costs {p} {n} dollars.",),
            ),
            Link(
                ("the cost for each", "/", SMALL, D),
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
            Link(
                ("the basic cost", "x", (2, 3, 4, 5, 6, 7, 8, 9, 10), D),
                ("It costs {n} dollars a month.", "The monthly fee is {n} dollars."),
                "each month costs {n}",
                ("How many dollars are the monthly fees?", "What does the account cost?"),
                ("{q} takes {n} dollars of monthly fees from {p}.",),
            ),
            Link(
                ("the cost after refund", "-", COSTS, D),
                ("{q} refunds {n} dollars.", "A refund of {n} dollars is given."),
                "{n} are refunded",
                ("How many dollars of fees remain?", "What are the fees after the refund?"),
                ("After a refund, {p} owes {q} {n} dollars of fees.",),
            ),
            Link(
                ("the whole cost", "+", COSTS, D),
                ("Paper letters cost {n} dollars.", "A new card costs {n} dollars."),
                "{n} are added",
                ("How many dollars are all fees?", "What are the fees in all?"),
                ("All fees of {p} at {q} are {n} dollars.",),
            ),
            Link(
                ("the balance", "n-", (100, 120, 150, 200, 300, 400, 500), D),
                ("The account holds {n} dollars.", "{p} had saved {n} dollars."),
                "the account holds {n}",
                ("How many dollars are left after fees?", "What is the balance after fees?"),
                ("After fees, {p} has {n} dollars at {q}.",),
            ),
            Link(
                ("the balance after gift", "+", (20, 30, 40, 50, 100), D),
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
            Link(
                ("the gross amount", "x", (2, 3, 4, 5, 6, 8, 9), "crowns"),
                ("One euro buys {n} crowns.", "The rate is {n} crowns per euro."),
                "a euro buys {n} crowns",
                ("How many crowns is that?", "How many crowns does {p} get before fees?"),
                ("{q} owes {p} {n} crowns before fees.",),
            ),
            Link(
                ("the net amount", "-", COSTS, "crowns"),
                ("The fee is {n} crowns.", "{q} keeps {n} crowns as a fee."),
                "the fee is {n}",
                ("How many crowns does {p} get?", "How many crowns are paid out?"),
                ("After fees, {p} gets {n} crowns from {q}.",),
            ),
            Link(
                ("each share", "/", SMALL, "crowns"),
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
            Link(
                ("the commission", "%", RATES, D),
                ("The commission is {n}%.", "{q} pays {n}% commission."),
                "{n}% are paid",
                ("How many dollars is the commission?", "What is the commission in dollars?"),
                ("{q} pays {p} a commission of {n} dollars.",),
            ),
            Link(
                ("the month's commission", "x", SMALL, D),
                ("{p} makes {n} such sales.", "This happens {n} times in a month."),
                "there are {n} such sales",
                ("How many dollars is that in all?", "What is the month's commission?"),
                ("{p} earns {n} dollars of commission in a month.",),
            ),
            Link(
                ("the pay after desk fee", "-", COSTS, D),
                ("A desk costs {n} dollars.", "{q} keeps {n} dollars for the desk."),
                "{n} go for the desk",
                ("How many dollars are left?", "What is left after the desk fee?"),
                ("After costs, {q} pays {p} {n} dollars a month.",),
            ),
            Link(
                ("the pay over months", "x", SMALL, D),
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
            Link(
                ("the sum saved", "x", (2, 3, 4, 5, 6, 8, 10, 12), D),
                ("This lasts {n} months.", "{n} months pass."),
                "{n} months pass",
                ("How many dollars are saved?", "What is saved in dollars?"),
                ("{p} has saved {n} dollars at {q}.",),
            ),
            Link(
                ("the sum with interest", "+", COSTS, D),
                ("Interest brings {n} dollars.", "{q} pays {n} dollars of interest."),
                "interest adds {n}",
                ("How many dollars is that with interest?", "What does {p} have then?"),
                ("With interest, {p} has {n} dollars at {q}.",),
            ),
            Link(
                ("the missing sum", "n-", (*HUNDREDS, 1000), D),
                ("The goal is {n} dollars.", "A course costs {n} dollars."),
                "{n} are needed",
                ("How many dollars are missing?", "What is still missing in dollars?"),
                ("{p} is {n} dollars short of a goal.",),
            ),
            Link(
                ("the further payment", "/", (2, 3, 4, 5, 6, 10), D),
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
            Link(
                ("the transfer cost", "x", (2, 3, 4, 5, 6, 8), D),
                ("Each costs {n} dollars.", "{q} takes {n} dollars for each."),
                "each costs {n}",
                ("How many dollars is that?", "What are the fees in dollars?"),
                ("Transfers cost {p} {n} dollars at {q}.",),
            ),
            Link(
                ("the monthly cost", "+", COSTS, D),
                ("The account costs {n} dollars more.", "A base fee of {n} dollars is added."),
                "a base fee of {n} is added",
                ("How many dollars is that in all?", "What does the month cost?"),
                ("{p} pays {q} {n} dollars of fees a month.",),
            ),
            Link(
                ("the cost over time", "x", SMALL, D),
                ("{n} months are the same.", "This goes on for {n} months."),
                "there are {n} months",
                ("How many dollars are the fees over all months?",),
            ),
        ),
    ),
)
