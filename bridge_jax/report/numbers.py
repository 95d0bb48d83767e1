"""How reports write numbers: shares, differences, dollars and counts."""


def percent(share: float) -> str:
    """Returns a share in whole per cent, with a decimal where the whole would say all or none."""
    near_an_end = 0 < share < 0.01 or 0.99 < share < 1
    return f"{100 * share:.1f}%" if near_an_end else f"{100 * share:.0f}%"


def interval(bounds: list[float]) -> str:
    """Returns two shares as "40–54%"."""
    return f"{100 * bounds[0]:.0f}–{100 * bounds[1]:.0f}%"


def points(difference: float) -> str:
    """Returns a difference of shares in percentage points, such as "23.5" or "−3"."""
    rounded = round(100 * difference, 1)
    return f"{'−' if rounded < 0 else ''}{abs(rounded):.1f}".removesuffix(".0")


def dollars(usd: float) -> str:
    """Returns US dollars: cents, or four decimals below ten cents."""
    return f"${usd:,.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.4f}"


def count(number: int, one: str, many: str = "") -> str:
    """Returns "1 question", "4,120 questions"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
