"""GenRec, the estimator, and what it is made of once it is fitted."""
