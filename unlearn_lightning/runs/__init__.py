"""What makes a folder a run: its key, its records, its checkpoints, how it stops and goes on."""
