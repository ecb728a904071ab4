r"""
Neighbours by code, depth by depth
==================================

Each spline operator of a network names the affine piece that it uses: that is the *code* of an input, a
vector quantisation that the network performs on the way to its answer. The fraction of units in which two
codes differ is a distance between inputs (Balestriero and Baraniuk, 2018, Eq. 15). Near the input it compares
pixels; near the output, meanings.
"""

# %%
import matplotlib.pyplot as plt
import torch
from digits import digits, trained_network

import maxaffine as ma
from maxaffine import codebook, plot

train_x, train_y, test_x, test_y = digits()
spline = ma.Spline(trained_network(train_x, train_y), train_x[:1])
names = [operator.name for operator in spline.operators]
train_code, test_code = spline.code(train_x), spline.code(test_x)

# %%
# Four test images (red frames) and the 15 nearest training images of each, by the code of each operator: the
# paper's picture. An orange frame marks another digit.
queries = [int((test_y == digit).nonzero()[1]) for digit in (1, 3, 8, 9)]
asked = test_code[torch.tensor(queries)]
titles = {operator.name: f"{operator.op} {operator.name!r}" for operator in spline.operators}
found = {titles[name]: codebook.nearest(asked, train_code, 15, name) for name in names}
plot.neighbours(1 - test_x, found, queries, test_y, pool=1 - train_x, pool_labels=train_y)
plt.show()

# %%
# How many of the k nearest of all images are of the query's class, one number a depth. The last code has 64 units,
# of which few differ at all between images: many neighbours are equally near, and the earliest of them are taken.
everything = spline.code(torch.cat([train_x, test_x]))
labels = torch.cat([train_y, test_y])
agreement = codebook.class_agreement(everything, labels, k=(1, 5, 20), queries=range(1500, 1797))
print(agreement)
plot.class_agreement(agreement, k=20)
plt.show()

# %%
# Mean distance of the codes of two test images, of the same digit and of different digits. At the last
# operator the one is largest in proportion to the other: on average, its partition is about the classes.
same = test_y[:, None] == test_y[None, :]
other = ~same
same.fill_diagonal_(False)
means = []
for name in names:
    distances = ma.pairwise_distance(test_code, test_code, operators=name)
    means.append((distances[same].mean().item(), distances[other].mean().item()))
within, between = torch.tensor(means).T

figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
axis.plot(between.numpy(), "o-", label="different digits")
axis.plot(within.numpy(), "o-", label="the same digit")
axis.set_xticks(range(len(names)), list(titles.values()))
axis.set_xlabel("operator, from input to output")
axis.set_ylabel("mean code distance")
axis.set_ylim(0)
axis.legend(frameon=False)
plt.show()
ratio = between / within
print("different / same, by operator:", [f"{value:.2f}" for value in ratio])
assert ratio[-1] > ratio[0]
