"""The numbers of a report that gates are usually set on: those of its sections, each after the section's name."""

from hessdiag.questions.registry import SINGLE

MEANINGS = {
    f"{asked.name}.{path}": meaning
    for asked in SINGLE
    for path, meaning in asked.module("metrics").MEANINGS.items()
    if path in asked.headlines
} | {"seconds": "what all questions took together"}
