"""Rewards of a reply at a budget: accuracy and fidelity to the budget (BARD, 2511.01470).

The paper multiplies the two. The form of the fidelity is our choice: 1 from half the budget to all
of it, falling to 0 at a quarter above, and to 0.7 for a reply without thinking.
"""

from collections.abc import Sequence

from bridge_jax.config import Reward

_ABOVE = 0.25  # Share of the budget above it at which nothing is left.
_BELOW = 0.3  # Lost by a reply without thinking.


def fidelity(thinking: int, budget: int, floor: bool = True) -> float:
    """Returns how well `thinking` tokens keep to a budget, in [0, 1].

    Args:
      thinking: tokens.
      budget: tokens, at least 1.
      floor: whether less than half of the budget costs something too.
    """
    above = max(0, thinking - budget) / (_ABOVE * budget)
    below = max(0.0, 0.5 * budget - thinking) / (0.5 * budget) if floor else 0.0
    return min(1.0, max(0.0, 1 - above - _BELOW * below))


def reward(kind: Reward, right: bool, ended: bool, thinking: int, budget: int) -> float:
    """Returns the reward of a reply, in [0, 1].

    Args:
      kind: `multiplied`, accuracy times fidelity; `ceiling`, the same without a cost of brevity;
        `added`, the mean of both, which also pays for a wrong reply that keeps to the budget.
      right: whether its answer is the gold one; a reply without an answer is not.
      ended: whether the model ended it itself; otherwise it gets nothing.
      thinking: tokens.
      budget: tokens.
    """
    if not ended:
        return 0.0
    kept = fidelity(thinking, budget, floor=kind != "ceiling")
    return (right + kept) / 2 if kind == "added" else right * kept


def advantages(rewards: Sequence[float]) -> list[float]:
    """Returns each reward of a group less their mean, not divided by their deviation.

    Dividing weighs questions by how unlikely their rarer outcome is (Dr. GRPO, 2503.20783).
    """
    mean = sum(rewards) / len(rewards)
    return [reward - mean for reward in rewards]


def teaches(kind: Reward, rewards: Sequence[float], right: Sequence[bool]) -> bool:
    """Returns whether a group has a signal: its rewards differ.

    Where accuracy and fidelity are added, groups whose replies are all right or all wrong are left
    out too: all-wrong ones differ in length alone, and would teach short wrong answers (the other
    rewards are 0 there), so that the comparison would be confounded.
    """
    if kind == "added" and len(set(right)) == 1:
        return False
    return max(rewards) - min(rewards) > 1e-9
