"""Where a race starts, in sentences: of results alone."""

from hessdiag.numbers import counted, listed, number, percent
from hessdiag.questions.common.result import Finding
from hessdiag.questions.escape.result import Escape, Plateau

ABSENT = {
    "trained": (
        "This network is trained already: the race is about further descent, and no plateau is left.",
        "no --weights, or --init, to race from where training starts",
    ),
    "minimum": (
        "The race starts at a minimum, or close to one: no way down begins here.",
        "hessdiag check MODEL, which says whether there is anything to learn",
    ),
    "slope": (
        "This is no plateau: gradient descent lowers the loss from its first steps on, and the race is about how fast.",
        "",
    ),
}


def sentence(found: Plateau, *, steepness: float, lowered: float, dtype: str) -> str:
    """What is known of a start.

    Args:
        found: All but the sentence.
        steepness: By how much of itself the loss would change if the weights moved by their own norm, in proportion.
        lowered: The loss after the first steps of gradient descent.
        dtype: Of the parameters, as "float32".
    """
    if found.state == "dead":
        return _dead(found, dtype)
    if found.state == "trained":
        return _trained(found)
    if found.state == "minimum":
        return _minimum(found)
    return _plateau(found, steepness) if found.state == "plateau" else _slope(found, lowered)


def _beside(found: Plateau) -> str:
    return "" if found.constant_loss is None else f", and the best constant output has {number(found.constant_loss)}"


def _dead(found: Plateau, dtype: str) -> str:
    names = listed(found.silent)
    whole = not found.gradient_norm
    what = (
        "every entry of the gradient is exactly zero"
        if whole
        else f"{percent(found.gradient_zeros, 3)} of the gradient's entries are exactly zero, all of {names} among them"
    )
    rest = "" if whole else " What is left learns a constant output only."
    doubt = "" if dtype == "float64" else f" This is in {dtype}: --dtype float64 tells whether they only underflow."
    return f"Dead, no plateau: {what}, at the loss {number(found.loss)}{_beside(found)}.{rest}{doubt}"


def _trained(found: Plateau) -> str:
    constant = found.constant_loss if found.constant_loss is not None else found.reference
    share = (found.loss - found.floor) / (constant - found.floor)
    return (
        f"No plateau: this network has learnt already. Its loss is {number(found.loss)}, {percent(share, 2)} of "
        f"that of the best constant output, {number(constant)}."
    )


def _minimum(found: Plateau) -> str:
    return (
        f"No plateau but a minimum, or close to one: the loss is {number(found.loss)}{_beside(found)}. The gradient's "
        f"norm is {number(found.gradient_norm)}, and the smallest eigenvalue of the Hessian is {number(found.lowest)} "
        f"beside the largest, {number(found.highest)}."
    )


def _slope(found: Plateau, lowered: float) -> str:
    down = f"the first steps of gradient descent bring it to {number(lowered)}, and " if lowered < found.loss else ""
    return f"No plateau: the loss is {number(found.loss)}{_beside(found)}; {down}the gradient does not vanish."


def _plateau(found: Plateau, steepness: float) -> str:
    learnt = f", which gradient descent learns in {counted(found.begins, 'step')}" if found.begins else ""
    there = "There the" if found.begins else "The"
    down = "" if found.lowest is None else f"; the most negative curvature is {number(found.lowest)}"
    return (
        f"On a plateau: the loss is {number(found.loss)}{_beside(found)}{learnt}. {there} gradient's norm is "
        f"{number(found.gradient_norm)}, and weights that move along it by 1 % take {percent(0.01 * steepness, 2)} of "
        f"the loss{down}."
    )


def dead_findings(result: Escape) -> list[Finding]:
    """Networks that are dead where the race starts."""
    dead = [plateau for plateau in result.plateaus if plateau.dead]
    if not dead:
        return []
    many = len(result.plateaus)
    whole = len(dead) == many
    which = "This network is dead" if many == 1 else f"{len(dead)} of {many} networks are dead"
    return [
        Finding(
            "bad" if whole else "warn",
            f"{which}: no weight that could tell samples apart has a gradient, and no optimizer mends that.",
            dead[0].says or "every entry of the gradient is exactly zero, on all samples",
            "hessdiag check MODEL --try, which says where the signal ends and mends it",
        )
    ]


def no_plateau_findings(result: Escape) -> list[Finding]:
    """What the race is about, where it starts on no plateau."""
    alive = [plateau for plateau in result.plateaus if not plateau.dead]
    absent = [plateau for plateau in alive if not plateau.present]
    if not absent:
        return []
    first, some = absent[0], f"{len(absent)} of {len(alive)} networks start on no plateau"
    says, remedy = ABSENT[first.state if first.state in ABSENT else "slope"]
    because = first.says or f"the gradient's norm is {number(first.gradient_norm)}"
    return [Finding("note", says if len(alive) == 1 else f"{some}. {says}", because, remedy)]
