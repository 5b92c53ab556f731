"""Training by name: what a run is asked for, the run itself, its evaluations and pictures."""
