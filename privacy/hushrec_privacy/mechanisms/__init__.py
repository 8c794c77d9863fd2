"""What bounds a contribution and what hides it; importing this loads nothing else.

clipping            flat L2 clipping of one update
norm_bound          how long a vector is after rounding
rounding            conditional stochastic rounding onto integers
discrete_gaussian   exact discrete Gaussian noise
toeplitz            coefficients of the square-root Toeplitz matrix
banded              correlated noise over rounds on the integer lattice
noise_store         its sealed state in SQLite
local_noise         the same noise on one device, for a vector that it sends by itself
float_gaussian      noise in floating point, for central training
seal                the key of that state, and sealing one row
"""
