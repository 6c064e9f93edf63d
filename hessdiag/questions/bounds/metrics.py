"""The numbers of a `bounds` result that gates are usually set on, and what each means."""

MEANINGS = {
    "measured.1": "largest eigenvalue, measured",
    "measured.0": "smallest eigenvalue, measured",
    "gershgorin.1": "upper end of Gershgorin's discs",
    "gershgorin.0": "lower end of Gershgorin's discs",
    "perron.1": "upper end after the best diagonal scaling; null if sketched",
    "inner.0": "an eigenvalue is at or below this",
}
