"""A plane partition as a picture sees it: pixels, colours, the decision boundary, the cells of the first operators.

Everything here is a function of the arrays of a `PlanePartition`; nothing here draws.
"""
