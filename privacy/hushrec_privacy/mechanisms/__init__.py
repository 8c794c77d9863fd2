"""What bounds a contribution and what hides it; importing this loads nothing else.

clipping            flat L2 clipping of one update
norm_bound          how long a vector is after rounding
rounding            conditional stochastic rounding onto integers
discrete_gaussian   exact discrete Gaussian noise
toeplitz            coefficients of the square-root Toeplitz matrix
banded              correlated noise over rounds on the integer lattice
noise_store         its sealed state in SQLite
float_gaussian      noise in floating point, for central training
seal                the key of that state, and sealing one row
"""
