"""What a network is asked for: likelihoods, the scoring of many responses, generated answers, distances between predictions."""
