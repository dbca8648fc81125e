"""In the training process: from an event of the Trainer to a push on disk."""
