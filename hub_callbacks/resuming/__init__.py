"""From the Hub, the outbox or the disk back to a checkpoint that training can continue from."""
