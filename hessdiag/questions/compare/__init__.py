"""`hessdiag compare`: what changed between results, and whether beyond the errors of both."""
