"""The numbers of an `escape` result that gates are usually set on, and what each means."""

MEANINGS = {
    "escaped": "share of all runs that escaped",
    "contenders.0.backprops": "gradients and products until the first optimizer is out; null where it is not",
    "contenders.0.escaped": "how many of its runs escaped",
    "plateaus.0.loss": "loss where the race starts",
    "plateaus.0.gradient_norm": "Euclidean norm of the gradient there",
    "plateaus.0.lowest": "smallest eigenvalue of the Hessian there",
    "runs.0.backprops": "gradients and products until the first run escaped",
    "runs.0.best_loss": "smallest loss of it",
    "runs.0.score": "mean loss of it over a window of steps, where a task compares that",
}
