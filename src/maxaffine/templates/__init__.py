"""Templates: the rows of A[x] as the matched filters that a network builds for each signal, one a class.

score_c = <A_c, x> + b_c      with A, b the affine map of the region of x

`templates` makes the bank of one batch, `template_statistics` reads a whole data set in bounded memory, `reading` says
what a decision rests on. Beside them stand the bank that would be best (`optimal_templates`), what white noise does to
a decision (`pairwise_error`), the local Lipschitz constant (`spectral_norm`) and steps along a template
(`sign_perturbation`). Source: Balestriero & Baraniuk 2018, arXiv 1805.06576, section 5.

>>> import torch, maxaffine as ma
>>> from maxaffine.templates import templates
>>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).double()
>>> x = torch.randn(5, 4, dtype=torch.float64)
>>> bank = templates(ma.Spline(net, x).at(x), x)
>>> bank.A.shape, bool((bank.scores - net(x)).abs().max() < 1e-12)
(torch.Size([5, 3, 4]), True)
"""

from maxaffine.templates.bank import Templates, correct, templates, wrong
from maxaffine.templates.decision import Reading, reading
from maxaffine.templates.distributions import Distribution, distribution, merge_distributions
from maxaffine.templates.noise import NoisyErrors, noisy_errors, pairwise_error
from maxaffine.templates.optimum import (
    distance_to_optimal,
    optimal_gap,
    optimal_loss,
    optimal_scores,
    optimal_templates,
)
from maxaffine.templates.perturbations import Perturbation, perturbation, sign_perturbation
from maxaffine.templates.spectrum import SpectralNorm, spectral_norm
from maxaffine.templates.statistics import Angles, TemplateStatistics, merge_statistics, template_statistics

__all__ = [
    "Angles",
    "Distribution",
    "NoisyErrors",
    "Perturbation",
    "Reading",
    "SpectralNorm",
    "TemplateStatistics",
    "Templates",
    "correct",
    "distance_to_optimal",
    "distribution",
    "merge_distributions",
    "merge_statistics",
    "noisy_errors",
    "optimal_gap",
    "optimal_loss",
    "optimal_scores",
    "optimal_templates",
    "pairwise_error",
    "perturbation",
    "reading",
    "sign_perturbation",
    "spectral_norm",
    "template_statistics",
    "templates",
    "wrong",
]
