"""The rules of the contract, one file for each chapter of what the dispatcher promises."""
