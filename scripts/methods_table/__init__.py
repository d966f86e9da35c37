"""How path-dependent each unlearning method is: the learning rates by one rule, and the tables of docs/methods.md."""
