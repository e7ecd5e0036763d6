"""What scripts/batch_faults asks of a batch, and which ends are right."""
