"""What a checkpoint folder is: its files, whether it is complete, what stays on the Hub."""
