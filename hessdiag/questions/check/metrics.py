"""The numbers of a `check` result that gates are usually set on, and what each means."""

MEANINGS = {
    "confidence": "how sure the first cause is; 0 without one, from 0.7 on it will not train as it is",
    "output.loss": "the loss at the weights as they are",
    "step.update_ratio": "size of the optimizer's first step over that of the weights, median layer",
}
