"""Published numbers, each reached by one command: a paper a file.

`study` holds what most of them share: a cell of a paper's table is a VAE and the losses it is
trained by, one after the other; it is trained within a budget of time, over several seeds at once
(`training`), and measured by importance sampling (`likelihood`). Each program prints the published
number beside the one it reached, and writes both after each cell (`table`).
"""
