"""What the questions share: verdicts, certificates, planned cost, pieces of long runs."""
