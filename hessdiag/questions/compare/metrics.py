"""The numbers of a `compare` result that gates are usually set on, and what each means."""

MEANINGS = {
    "significant": "how many numbers changed beyond the errors of both",
    "worse": "how many of these got worse, where a question knows which way that is",
    "better": "how many of these got better, likewise",
    "differences": "how many settings differ besides weights and seeds; 0 of results that can be compared",
    "changes.0.change": "change of the first number, the last result less the first",
    "changes.0.p": "how likely chance alone does that; null where both are exact",
}
