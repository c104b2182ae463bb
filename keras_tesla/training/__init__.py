"""Training one model at several percentages."""
