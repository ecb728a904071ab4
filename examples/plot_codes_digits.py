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

train_x, train_y, test_x, test_y = digits()
spline = ma.Spline(trained_network(train_x, train_y), train_x[:1])
names = [operator.name for operator in spline.operators]
train_code, test_code = spline.code(train_x), spline.code(test_x)

# %%
# The nearest training image of six test images, by the code of each operator, and its distance. In red:
# another digit. (At distance 0 the two images have the same code there: they lie in the same cell.)
queries = [int((test_y == digit).nonzero()[1]) for digit in (1, 3, 5, 7, 8, 9)]
titles = ["query", *(f"{operator.op} {operator.name!r}" for operator in spline.operators)]
figure, axes = plt.subplots(6, len(titles), figsize=(7.5, 7.5), layout="constrained")
for row, query in zip(axes, queries, strict=True):
    row[0].imshow(test_x[query, 0].numpy(), cmap="gray_r")
    for axis, name in zip(row[1:], names, strict=True):
        distances = ma.pairwise_distance(test_code[query], train_code, operators=name)[0]
        nearest = distances.argmin()
        same = train_y[nearest] == test_y[query]
        axis.imshow(train_x[nearest, 0].numpy(), cmap="gray_r" if same else "Reds")
        axis.set_xlabel(f"{distances[nearest]:.3f}", fontsize=8)
for axis, title in zip(axes[0], titles, strict=True):
    axis.set_title(title, fontsize=9)
for axis in axes.flat:
    axis.set_xticks([])
    axis.set_yticks([])
plt.show()

# %%
# Mean distance of the codes of two test images, of the same digit and of different digits. The deeper the
# operator, the larger the one in proportion to the other: the partition of the last layers is about the classes.
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
axis.set_xticks(range(len(names)), titles[1:])
axis.set_xlabel("operator, from input to output")
axis.set_ylabel("mean code distance")
axis.set_ylim(0)
axis.legend(frameon=False)
plt.show()
ratio = between / within
print("different / same, by operator:", [f"{value:.2f}" for value in ratio])
assert ratio[-1] > ratio[0]
