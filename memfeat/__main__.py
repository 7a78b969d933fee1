"""`python -m memfeat`."""

from memfeat.cli import main

if __name__ == "__main__":
    main()
