"""What lies on disk: checkpoints, the folder of a run, its log and status."""
