"""Published numbers, each reached by one command: a paper a file.

`study` holds what they share. A cell of a paper's table is a model and what its training
maximises; it is trained within a budget of time, over several seeds at once, and measured by
importance sampling. Each program prints the published number beside the one it reached, and
writes both.
"""
