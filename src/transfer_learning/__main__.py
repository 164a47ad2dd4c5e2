"""`python -m transfer_learning VERB ...`"""

from transfer_learning.cli.main import main

if __name__ == "__main__":
    main()
