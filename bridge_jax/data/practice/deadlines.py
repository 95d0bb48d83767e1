"""Contract deadlines: invented contracts; days are counted within one month, without holidays."""

from bridge_jax.data.practice.chain import Chain, Stage

WORDS = {
    "p": (
        *("Arden", "Birch Ltd", "Calder", "Delta Foods", "Elm & Co", "Fenwick", "Garnet", "Holt"),
        *("Ivory Press", "Juno", "Kestrel", "Larch Inc", "Maple", "Norden", "Orion", "Pike"),
    ),
    "q": (
        *("the landlord", "the buyer", "the supplier", "the tenant", "the agency", "the lender"),
        *("the client", "the insurer", "the carrier", "the owner"),
    ),
    "month": (
        *("January", "March", "April", "May", "June", "July", "August"),
        *("September", "October", "November", "December"),
    ),
}

DATES = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15)
# As many in time (0 included) as too late.
OFFSETS = (-5, -4, -3, -2, -1, 0, 1, 1, 2, 3, 4, 5)
ON_TIME = ("on time", "late")

CHAINS = (
    Chain(
        "payment",
        ("the term", "weeks", (2, 3)),
        ("{p} must pay {q} within {n} weeks.", "The term for {p} to pay {q} is {n} weeks."),
        (
            Stage(
                *("the term in days", "x", (7,), "days", ()),
                "a week has 7 days",
                ("How many days is the term?", "How many days does {p} have?"),
                (
                    "{p} must pay {q} within {n} days.",
                    "The contract gives {p} {n} days to pay {q}.",
                ),
            ),
            Stage(
                *("the shortened term", "-", (2, 3, 4, 5, 6, 8), "days"),
                (
                    "A fast-track clause takes off {n} days.",
                    "The parties shorten this by {n} days.",
                ),
                "{n} days are taken off",
                ("How many days are left to pay?", "How long is the new term in days?"),
                ("The short term for {p} to pay {q} is {n} days.",),
            ),
            Stage(
                *("the deadline", "+", DATES, ""),
                ("It starts on {month} {n}.", "Counting begins from {month} {n}."),
                "counting starts on day {n}",
                ("On which day of {month} is payment due?", "Which day of {month} is the last?"),
                (
                    "Payment by {p} to {q} is due on {month} {n}.",
                    "{p} must pay {q} by {month} {n}.",
                ),
                top=30,
            ),
            Stage(
                *("the payment", "limit", OFFSETS, ""),
                ("{p} pays on {month} {n}.", "The money arrives on {month} {n}."),
                "it is paid on day {n} and due by day {v}",
                ("Is the payment on time or late?", "On time or late?"),
                labels=ON_TIME,
                top=30,
            ),
        ),
    ),
    Chain(
        "business days",
        ("the period", "business days", (10, 15)),
        ("{p} has {n} business days to answer {q}.", "A reply to {q} takes {n} business days."),
        (
            Stage(
                *("the period in weeks", "/", (5,), "weeks", ()),
                "a week has 5 business days",
                ("How many weeks is that?", "How many calendar weeks is the period?"),
                ("{p} has {n} weeks to answer {q}.", "{q} expects a reply within {n} weeks."),
            ),
            Stage(
                *("the period in days", "x", (7,), "days", ()),
                "a week has 7 days",
                ("How many calendar days is that?", "How many days is that, weekends included?"),
                ("{p} has {n} calendar days to answer {q}.",),
            ),
            Stage(
                *("the deadline", "+", DATES, ""),
                ("The letter came on {month} {n}.", "The clock starts on {month} {n}."),
                "the clock starts on day {n}",
                (
                    "By which day of {month} must the reply arrive?",
                    "Which day of {month} is it due?",
                ),
                ("The reply of {p} to {q} is due on {month} {n}.",),
                top=30,
            ),
            Stage(
                *("the reply", "limit", OFFSETS, ""),
                ("The reply is sent on {month} {n}.", "{p} answers on {month} {n}."),
                "it is sent on day {n} and due by day {v}",
                ("Is the reply on time or late?", "Does it count as on time or late?"),
                labels=ON_TIME,
                top=30,
            ),
        ),
    ),
    Chain(
        "renewal",
        ("the last day", "", (24, 25, 26, 27, 28, 29, 30)),
        ("The lease of {p} ends on {month} {n}.", "The deal of {p} with {q} runs to {month} {n}."),
        (
            Stage(
                *("the notice day", "-", (3, 4, 5, 6, 7, 8, 10), ""),
                ("Notice must arrive {n} days earlier.", "To leave, give {n} days of notice."),
                "notice comes {n} days before",
                (
                    "By which day of {month} must notice arrive?",
                    "Which day of {month} is the last?",
                ),
                ("Notice must reach {q} by {month} {n}.", "{q} needs notice by {month} {n}."),
            ),
            Stage(
                *("the posting day", "-", (2, 3, 4, 5), ""),
                ("The post takes {n} days.", "Mail needs {n} days to arrive."),
                "the post takes {n} days",
                ("By which day of {month} must it be posted?", "What is the last posting day?"),
                ("Notice to {q} must be posted by {month} {n}.",),
            ),
            Stage(
                *("the drafting day", "-", (2, 3, 4, 5), ""),
                ("The lawyers need {n} days before that.", "Drafting takes {n} days first."),
                "drafting takes {n} days",
                ("On which day of {month} must work begin at the latest?",),
                ("Work on the notice to {q} must begin by {month} {n}.",),
            ),
            Stage(
                *("the notice", "limit", OFFSETS, ""),
                ("{p} begins on {month} {n}.", "The work begins on {month} {n}."),
                "work begins on day {n} and should by day {v}",
                ("Is that on time or late?", "Is {p} on time or late?"),
                labels=ON_TIME,
                top=30,
            ),
        ),
    ),
    Chain(
        "weekday",
        ("the order", "items", (2, 3, 4, 5, 6)),
        ("{p} makes {n} machines for {q}.", "{q} orders {n} machines from {p}."),
        (
            Stage(
                *("the building time", "x", (2, 3, 4, 5, 6), "days"),
                ("Each takes {n} days.", "One needs {n} days to build."),
                "each takes {n} days",
                ("How many days does building take?", "How many days are needed?"),
                (
                    "{p} has {n} days to build a machine for {q}.",
                    "Building for {q} takes {n} days.",
                ),
            ),
            Stage(
                *("the full time", "+", (2, 3, 4, 5, 6, 8, 10), "days"),
                ("Delivery takes {n} days more.", "Tests add {n} days."),
                "{n} days are added",
                ("How many days is that in all?", "How many days pass until the end?"),
                ("{p} must deliver to {q} after {n} days.", "{q} gives {p} {n} days to deliver."),
            ),
            Stage(
                *("the rest after whole weeks", "week", (), "days", ()),
                "whole weeks do not change the weekday",
                ("How many days remain after whole weeks?",),
                ("{p} owes {q} an answer in {n} days.", "{q} gives {p} {n} days to object."),
            ),
            Stage(
                *("the last weekday", "weekday", (), ""),
                ("It begins on a {n}.", "The first day counted from is a {n}."),
                "the count begins on {n}",
                ("On which weekday does it end?", "Which weekday is the deadline?"),
            ),
        ),
    ),
)
