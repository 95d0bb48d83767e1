"""Contract deadlines: invented contracts; days are counted within one month, without holidays."""

from bridge_jax.data.practice.chain import Chain, Link

WORDS = {
    "p": (
        "Arden", "Birch Ltd", "Calder", "Delta Foods", "Elm & Co", "Fenwick", "Garnet", "Holt",
        "Ivory Press", "Juno", "Kestrel", "Larch Inc", "Maple", "Norden", "Orion", "Pike",
    ),
    "q": (
        "the landlord", "the buyer", "the supplier", "the tenant", "the agency", "the lender",
        "the client", "the insurer", "the carrier", "the owner",
    ),
    "month": (
        "January", "March", "April", "May", "June", "July", "August",
        "September", "October", "November", "December",
    ),
}  # fmt: skip

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
            Link(
                ("the term in days", "x", (7,), "days"),
                (),
                "a week has 7 days",
                ("How many days is the term?", "How many days does {p} have?"),
                (
                    "{p} must pay {q} within {n} days.",
                    "The contract gives {p} {n} days to pay {q}.",
                ),
            ),
            Link(
                ("the shortened term", "-", (2, 3, 4, 5, 6, 8), "days"),
                (
                    "A fast-track clause takes off {n} days.",
                    "The parties shorten this by {n} days.",
                ),
                "{n} days are taken off",
                ("How many days are left to pay?", "How long is the new term in days?"),
                ("The short term for {p} to pay {q} is {n} days.",),
            ),
            Link(
                ("the deadline", "+", DATES, ""),
                ("It starts on {month} {n}.", "Counting begins from {month} {n}."),
                "counting starts on day {n}",
                ("On which day of {month} is payment due?", "Which day of {month} is the last?"),
                (
                    "Payment by {p} to {q} is due on {month} {n}.",
                    "{p} must pay {q} by {month} {n}.",
                ),
                top=30,
            ),
            Link(
                ("the payment", "limit", OFFSETS, ""),
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
            Link(
                ("the period in weeks", "/", (5,), "weeks"),
                (),
                "a week has 5 business days",
                ("How many weeks is that?", "How many calendar weeks is the period?"),
                ("{p} has {n} weeks to answer {q}.", "{q} expects a reply within {n} weeks."),
            ),
            Link(
                ("the period in days", "x", (7,), "days"),
                (),
                "a week has 7 days",
                ("How many calendar days is that?", "How many days is that, weekends included?"),
                ("{p} has {n} calendar days to answer {q}.",),
            ),
            Link(
                ("the deadline", "+", DATES, ""),
                ("The letter came on {month} {n}.", "The clock starts on {month} {n}."),
                "the clock starts on day {n}",
                (
                    "By which day of {month} must the reply arrive?",
                    "Which day of {month} is it due?",
                ),
                ("The reply of {p} to {q} is due on {month} {n}.",),
                top=30,
            ),
            Link(
                ("the reply", "limit", OFFSETS, ""),
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
            Link(
                ("the notice day", "-", (3, 4, 5, 6, 7, 8, 10), ""),
                ("Notice must arrive {n} days earlier.", "To leave, give {n} days of notice."),
                "notice comes {n} days before",
                (
                    "By which day of {month} must notice arrive?",
                    "Which day of {month} is the last?",
                ),
                ("Notice must reach {q} by {month} {n}.", "{q} needs notice by {month} {n}."),
            ),
            Link(
                ("the posting day", "-", (2, 3, 4, 5), ""),
                ("The post takes {n} days.", "Mail needs {n} days to arrive."),
                "the post takes {n} days",
                ("By which day of {month} must it be posted?", "What is the last posting day?"),
                ("Notice to {q} must be posted by {month} {n}.",),
            ),
            Link(
                ("the drafting day", "-", (2, 3, 4, 5), ""),
                ("The lawyers need {n} days before that.", "Drafting takes {n} days first."),
                "drafting takes {n} days",
                ("On which day of {month} must work begin at the latest?",),
                ("Work on the notice to {q} must begin by {month} {n}.",),
            ),
            Link(
                ("the notice", "limit", OFFSETS, ""),
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
            Link(
                ("the building time", "x", (2, 3, 4, 5, 6), "days"),
                ("Each takes {n} days.", "One needs {n} days to build."),
                "each takes {n} days",
                ("How many days does building take?", "How many days are needed?"),
                (
                    "{p} has {n} days to build a machine for {q}.",
                    "Building for {q} takes {n} days.",
                ),
            ),
            Link(
                ("the full time", "+", (2, 3, 4, 5, 6, 8, 10), "days"),
                ("Delivery takes {n} days more.", "Tests add {n} days."),
                "{n} days are added",
                ("How many days is that in all?", "How many days pass until the end?"),
                ("{p} must deliver to {q} after {n} days.", "{q} gives {p} {n} days to deliver."),
            ),
            Link(
                ("the rest after whole weeks", "week", (), "days"),
                (),
                "whole weeks do not change the weekday",
                ("How many days remain after whole weeks?",),
                ("{p} owes {q} an answer in {n} days.", "{q} gives {p} {n} days to object."),
            ),
            Link(
                ("the last weekday", "weekday", (), ""),
                ("It begins on a {n}.", "The first day counted from is a {n}."),
                "the count begins on {n}",
                ("On which weekday does it end?", "Which weekday is the deadline?"),
            ),
        ),
    ),
    Chain(
        "delay",
        ("the due day", "", (3, 4, 5, 6, 7, 8, 9, 10, 12, 14)),
        ("{p} should deliver to {q} by {month} {n}.", "Delivery to {q} is due on {month} {n}."),
        (
            Link(
                ("the last free day", "+", (2, 3, 4, 5, 6, 7), ""),
                ("A grace period of {n} days is free.", "{n} days of delay cost nothing."),
                "{n} days of grace follow",
                ("Which day of {month} is the last without penalty?",),
                ("After {month} {n}, {p} owes {q} a penalty.",),
            ),
            Link(
                ("the delay", "n-", (15, 16, 18, 20, 21, 22, 24, 25, 26, 28, 30), "days"),
                ("Delivery is on {month} {n}.", "The goods come on {month} {n}."),
                "the goods come on day {n}",
                ("How many days of delay are charged?", "How many days late is it?"),
                ("{p} delivers {n} days late to {q}.", "{q} waits {n} days too long for {p}."),
            ),
            Link(
                ("the penalty", "x", (5, 10, 20, 30, 40, 50), "dollars"),
                ("Each late day costs {n} dollars.", "The penalty is {n} dollars a day."),
                "each day costs {n} dollars",
                ("What is the penalty in dollars?", "How many dollars does {p} owe?"),
                ("{p} owes {q} a penalty of {n} dollars.",),
            ),
            Link(
                ("the reduced penalty", "-", (5, 10, 20, 30, 50), "dollars"),
                ("{q} waives {n} dollars.", "A credit of {n} dollars is set off."),
                "{n} dollars are taken off",
                ("What must {p} pay in dollars?", "How many dollars remain to be paid?"),
                ("After a credit, {p} owes {q} {n} dollars for delay.",),
            ),
            Link(
                ("each part", "/", (2, 3, 4, 5), "dollars"),
                ("It is paid in {n} equal parts.", "{n} equal instalments are agreed."),
                "there are {n} equal parts",
                ("How many dollars is each part?",),
            ),
        ),
    ),
    Chain(
        "term",
        ("the term", "years", (2, 3, 4, 5, 6)),
        ("{p} rents an office for {n} years.", "A contract of {p} with {q} runs {n} years."),
        (
            Link(
                ("the term in months", "x", (12,), "months"),
                (),
                "a year has 12 months",
                ("How many months is the term?", "How many months does it run?"),
                ("The contract of {p} with {q} runs {n} months.",),
            ),
            Link(
                ("the extended term", "+", (2, 3, 4, 6, 8, 10), "months"),
                ("It was extended by {n} months.", "An option added {n} months."),
                "{n} months were added",
                ("How many months is the extended term?", "How many months is that in all?"),
                ("With an option, the contract of {p} runs {n} months.",),
            ),
            Link(
                ("the time left", "-", (5, 6, 8, 10, 12, 15, 20, 24, 30, 36, 40), "months"),
                ("{n} months have passed.", "It began {n} months ago."),
                "{n} months are over",
                ("How many months are left?", "After how many more months does it end?"),
                ("The contract of {p} with {q} has {n} months left.",),
            ),
            Link(
                ("the notice window", "-", (2, 3, 4, 5, 6), "months"),
                ("Notice is due {n} months before the end.", "It needs {n} months of notice."),
                "notice comes {n} months before the end",
                ("Within how many months must {p} give notice?",),
                ("{p} must give {q} notice within {n} months.",),
            ),
            Link(
                ("the notice", "limit", OFFSETS, ""),
                ("{p} writes {n} months from now.", "The letter goes out in {n} months."),
                "it is sent in {n} months and due within {v}",
                ("Is the notice valid or too late?", "Valid or too late?"),
                labels=("valid", "too late"),
            ),
        ),
    ),
    Chain(
        "warranty",
        ("the years covered", "", (2, 3, 4, 5)),
        ("{p} gives {q} a warranty of {n} years.", "{q} has {n} years of warranty from {p}."),
        (
            Link(
                ("the warranty", "x", (12,), "months"),
                (),
                "a year has 12 months",
                ("How many months is the warranty?",),
                ("The warranty of {p} for {q} is {n} months.",),
            ),
            Link(
                ("the cover", "+", (2, 3, 4, 5, 6, 8, 10), "months"),
                ("A repair added {n} months.", "It was prolonged by {n} months."),
                "{n} months were added",
                ("How many months is {q} covered?", "How long is the cover in months?"),
                ("{p} covers faults reported by {q} within {n} months.",),
            ),
            Link(
                ("the claim", "limit", OFFSETS, ""),
                ("A fault is reported after {n} months.", "{q} reports a fault in month {n}."),
                "it is reported in month {n} and covered to {v}",
                ("Is the claim covered or expired?", "Covered or expired?"),
                labels=("covered", "expired"),
            ),
        ),
    ),
    Chain(
        "milestone",
        ("the tasks", "", (2, 3, 4, 5)),
        ("{p} must finish {n} tasks for {q}.", "A project for {q} has {n} tasks."),
        (
            Link(
                ("the work", "x", (2, 3, 4, 5), "days"),
                ("Each takes {n} days.", "Every task needs {n} days."),
                "each takes {n} days",
                ("How many days of work is that?", "How many days does the work take?"),
                ("{p} needs {n} days of work for {q}.",),
            ),
            Link(
                ("the time needed", "+", (2, 3, 4, 5), "days"),
                ("Review adds {n} days.", "{q} needs {n} days more to check."),
                "{n} days are added",
                ("How many days is that in all?",),
                ("Work and review for {q} take {n} days.",),
            ),
            Link(
                ("the finish", "+", DATES, ""),
                ("It begins on {month} {n}.", "{p} starts on {month} {n}."),
                "it begins on day {n}",
                ("On which day of {month} is it finished?", "Which day of {month} is the end?"),
                ("{p} finishes a project for {q} on {month} {n}.",),
                top=30,
            ),
            Link(
                ("the deposit day", "+", (2, 3, 4, 5, 6, 7), ""),
                ("The deposit returns {n} days later.", "{n} days after that, {q} pays."),
                "{n} days follow",
                ("On which day of {month} does the money come?",),
                ("{q} pays {p} on {month} {n}.",),
                top=30,
            ),
            Link(
                ("the reminder", "limit", OFFSETS, ""),
                ("{p} sends a reminder on {month} {n}.", "A reminder goes out on {month} {n}."),
                "it is sent on day {n} and payment is due by day {v}",
                ("Is the reminder too early or justified?", "Too early or justified?"),
                labels=("too early", "justified"),
                top=30,
            ),
        ),
    ),
    Chain(
        "shared period",
        ("the period", "days", (12, 16, 18, 20, 24, 28, 30, 36, 40)),
        ("{p} and {q} share a period of {n} days.", "The review period of {p} is {n} days."),
        (
            Link(
                ("each share", "/", (2, 3, 4), "days"),
                ("It is split into {n} equal phases.", "{n} rounds share it equally."),
                "{n} phases share it",
                ("How many days is one phase?", "How many days is each phase?"),
                ("Each phase of the review by {p} lasts {n} days.",),
            ),
            Link(
                ("the longer phase", "+", (2, 3, 4, 5), "days"),
                ("The first phase gets {n} days more.", "{n} days are added to phase one."),
                "{n} days are added",
                ("How many days is the first phase?",),
                ("The first phase for {p} lasts {n} days.",),
            ),
            Link(
                ("the end of the phase", "+", DATES, ""),
                ("It starts on {month} {n}.", "{q} opens it on {month} {n}."),
                "it starts on day {n}",
                ("On which day of {month} does it end?", "Which day of {month} closes it?"),
                ("Comments to {q} close on {month} {n}.", "The phase of {p} ends on {month} {n}."),
                top=30,
            ),
            Link(
                ("the comment", "limit", OFFSETS, ""),
                ("A comment arrives on {month} {n}.", "{p} comments on {month} {n}."),
                "it comes on day {n} and the end is day {v}",
                ("Is the comment accepted or rejected?", "Accepted or rejected?"),
                labels=("accepted", "rejected"),
                top=30,
            ),
        ),
    ),
    Chain(
        "stay",
        ("the term", "days", (10, 12, 14, 15, 18, 20)),
        ("{p} has {n} days to cure a default.", "{q} gives {p} {n} days to repair a breach."),
        (
            Link(
                ("the days left", "-", (2, 3, 4, 5, 6, 7, 8), "days"),
                ("{n} days pass before a stay.", "After {n} days the clock stops."),
                "{n} days were used",
                ("How many days are left?", "How many days remain after the stay?"),
                ("{p} has {n} days left to cure a default.",),
            ),
            Link(
                ("the extended rest", "+", (2, 3, 4, 5), "days"),
                ("A judge adds {n} days.", "{q} agrees to {n} days more."),
                "{n} days are added",
                ("How many days does {p} have then?",),
                ("With an extension, {p} has {n} days to cure.",),
            ),
            Link(
                ("the deadline", "+", DATES, ""),
                ("The clock restarts on {month} {n}.", "Counting resumes from {month} {n}."),
                "counting resumes on day {n}",
                ("On which day of {month} does the time end?", "Which day of {month} is the last?"),
                ("{p} must cure the default by {month} {n}.",),
                top=30,
            ),
            Link(
                ("the cure", "limit", OFFSETS, ""),
                ("{p} cures on {month} {n}.", "The breach is repaired on {month} {n}."),
                "the cure is on day {n} and due by day {v}",
                ("Is the cure on time or late?", "On time or late?"),
                labels=("on time", "late"),
                top=30,
            ),
        ),
    ),
)
