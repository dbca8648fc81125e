"""The durable queue on disk that the training process and the pusher share, and nothing else."""
