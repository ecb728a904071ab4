r"""
What a network compares a digit with
====================================

On the region of an input the network is affine, so the score of class :math:`c` is an inner product with a
picture, its *template*, plus a bias:

.. math:: f_c(x) = \langle A[x]_c,\, x \rangle + b[x]_c .

Nothing here is a linearisation: the sum is the score, to rounding. The templates change with the region,
that is, they are made for this input.
"""

# %%
# A small network, trained on scikit-learn's digits in a few seconds.
import matplotlib.pyplot as plt
import torch
from digits import digits, trained_network

import maxaffine as ma

train_x, train_y, test_x, test_y = digits()
model = trained_network(train_x, train_y)
spline = ma.Spline(model, train_x[:1])
print(spline)

# %%
# Its affine maps on three test images: ``A`` has one template for each class.
x = torch.stack([test_x[test_y == digit][0] for digit in (3, 5, 8)])
f = spline.at(x)
scores = model(x)
inner = (f.A * x[:, None]).flatten(2).sum(2)
assert torch.allclose(inner + f.b, scores, atol=1e-4)  # these two make the score
assert torch.equal(scores.argmax(1), torch.tensor([3, 5, 8]))

# %%
# The templates of the four classes with the highest scores. Red pixels speak for the class, blue ones against
# it. Above each template: inner product + bias = score.
figure, axes = plt.subplots(3, 5, figsize=(9, 6.4), layout="constrained")
for n, row in enumerate(axes):
    row[0].imshow(x[n, 0].numpy(), cmap="gray_r")
    row[0].set_title("input")
    limit = f.A[n].abs().max().item()
    for c, axis in zip(scores[n].argsort(descending=True).tolist(), row[1:], strict=False):
        axis.imshow(f.A[n, c, 0].numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
        parts = f"{inner[n, c]:.1f} {f.b[n, c]:+.1f} = {scores[n, c]:.1f}"
        axis.set_title(f"class {c}\n{parts}", fontsize=10)
for axis in axes.flat:
    axis.set_xticks([])
    axis.set_yticks([])
plt.show()

# %%
# Over all test images: how well does the bare inner product tell the classes apart, without the bias?
inner = (spline.at(test_x).A * test_x[:, None]).flatten(2).sum(2)
for name, score in {"score": model(test_x), "inner product alone": inner}.items():
    print(f"accuracy of the {name}: {(score.argmax(1) == test_y).float().mean():.3f}")
