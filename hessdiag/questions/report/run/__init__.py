"""What a `Monitor` wrote along a training run, as a result: `hessdiag report run.jsonl`. No torch."""
