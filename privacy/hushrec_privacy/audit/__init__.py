"""What a mechanism and a training run really give away, against what is claimed; importing this loads nothing else.

mechanism   noise, clipping, participations and sampling of a mechanism, by draws
draws       tests of drawn noise
findings    what an audit of a mechanism returns
one_run     lower bound of epsilon from the canaries of one training run
power       what such a bound can show at best
installed   the code that is installed here, at a plan's noise
rounds      the product's own rounds as the auditor sees them
tails       chi-square and binomial tails
"""
