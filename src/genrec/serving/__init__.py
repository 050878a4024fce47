"""The recommender as an HTTP service (extra ``serve``)."""
