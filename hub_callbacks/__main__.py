"""`python -m hub_callbacks` is `hub-callbacks`: `torchrun -m hub_callbacks run train.py` needs a module."""

from .cli import main

if __name__ == "__main__":
    main()
