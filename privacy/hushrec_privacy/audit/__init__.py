"""What a mechanism and a training run really give away, against what is claimed; importing this loads nothing else.

mechanism   noise, clipping, participations and sampling of a mechanism, by draws
one_run     lower bound of epsilon from the canaries of one training run, and what it cannot see
tails       chi-square and binomial tails
"""
