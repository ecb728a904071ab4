"""What a spline operator is: it knows ATen, and knows no network.

Every spline operator answers three questions about itself, and everything else is derived from them:
which piece is active (`code`), the value of that piece (`piece`, affine in the operands), and where it ends (`walls`,
affine in the operands and >= 0 exactly on that piece).

>>> import torch
>>> from maxaffine.operators import cpwl
>>> relu = cpwl("relu", knots=[0], slopes=[0, 1])
>>> z = torch.tensor([-2.0, 0.0, 3.0])
>>> code = relu.code(z)
>>> code.tolist(), relu.piece(relu.freeze(code, z.dtype), z).tolist(), relu.walls(code, z).tolist()
([0, 0, 1], [-0.0, 0.0, 3.0], [[2.0, -0.0, 3.0]])
"""

from maxaffine.operators.elementwise import Elementwise, cpwl
from maxaffine.operators.maximum import Pair, Windows
from maxaffine.operators.registry import Custom, SplineOperator, declare, register

__all__ = ["Custom", "Elementwise", "Pair", "SplineOperator", "Windows", "cpwl", "declare", "register"]
