"""In the pusher's process: which push is next, one attempt at it, and what an error means."""
