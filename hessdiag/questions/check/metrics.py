"""The numbers of a `check` result that gates are usually set on, and what each means."""

MEANINGS = {
    "causes.0.confidence": "how sure the first cause is; null if there is none",
}
