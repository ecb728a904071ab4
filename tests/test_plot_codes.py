"""Pictures of codes show the numbers they are given: frames, lines, tables."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

import maxaffine as ma
from maxaffine import codebook, plot
from maxaffine.plot.codes import OTHER, QUERY


@pytest.fixture(autouse=True)
def figures():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    x = torch.rand(40, 1, 6, 5)
    labels = np.arange(40) % 3
    net = nn.Sequential(nn.Flatten(), nn.Linear(30, 12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU())
    return x, labels, ma.Spline(net, x[:1]).code(x)


def test_mosaics_hold_the_images_and_frame_the_strangers(case):
    x, labels, code = case
    queries = np.array([4, 17])
    found = {n: codebook.nearest(code[torch.from_numpy(queries)], code, 8, n, own=queries) for n in ("2", "4")}
    figure = plot.neighbours(x, found, queries, labels)
    assert [axis.get_title() for axis in figure.axes] == ["2", "4", "", ""]
    span = float(x.max() - x.min())
    for row, query in enumerate(queries):
        for column, one in enumerate(found.values()):
            axis = figure.axes[2 * row + column]
            canvas = np.asarray(axis.images[0].get_array())
            shown = [query, *one.rows[row]]
            for place, image in enumerate(shown):
                top, left = 1 + place // 3 * 7, 1 + place % 3 * 6
                tile = canvas[top : top + 6, left : left + 5, 0]
                assert np.allclose(tile, (x[image, 0] - x.min()) / span, atol=1e-6)
            colours = [plt.matplotlib.colors.to_hex(box.get_edgecolor()) for box in axis.patches]
            assert colours == [QUERY] + [OTHER] * int((labels[one.rows[row]] != labels[query]).sum())


def test_curves_are_the_numbers(case):
    _, labels, code = case
    found = codebook.occupancy(code)
    figure = plot.occupancy({"a": found, "b": found})
    for axis, row in zip(figure.axes, found.cells, strict=True):
        assert np.array_equal(axis.lines[0].get_ydata(), row) and len(axis.lines) == 3
    agreement = codebook.class_agreement(code, labels, (1, 5))
    axis = plot.class_agreement({"a": agreement}, 5)
    assert np.array_equal(axis.lines[0].get_ydata(), agreement.shares[:, 1])
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["2", "4"]
    assert axis.lines[1].get_ydata()[0] == agreement.chance


def test_tables_scatters_and_embeddings(case):
    x, labels, code = case
    compared = codebook.compare(code, code)
    figure = plot.comparison(compared)
    said = [text.get_text() for text in figure.axes[2].texts]
    assert said == [f"{v:.2f}" for v in compared.correlation.flatten()] and said[0] == "1.00"
    against = codebook.against_euclidean(code, x)
    drawn = plot.distances(against)
    assert [axis.collections[0].get_array().size > 10 for axis in drawn.axes] == [True, True]
    places = np.random.default_rng(0).normal(size=(40, 2))
    axis = plot.embedding(places, labels).axes[0]
    assert np.array_equal(axis.collections[1].get_offsets(), places[labels == 1])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x, y, _: plot.neighbours(x, {}, [0], y), "1 queries"),
        (lambda x, y, c: plot.neighbours(x[0, 0], {"2": codebook.nearest(c[:1], c)}, [0], y), r"\(N, H, W\)"),
        (lambda _, y, c: plot.class_agreement(codebook.class_agreement(c, y, (1,)), 7), "k is 7"),
        (lambda *_: plot.occupancy({}), "nothing to show"),
        (lambda *_: plot.embedding(np.zeros((4, 3))), r"\(N, 2\)"),
        (lambda _, y, __: plot.embedding(np.zeros((4, 2)), y), "labels: 40"),
    ],
)
def test_what_does_not_fit_is_said(case, call, said):
    with pytest.raises(ma.errors.InputError, match=said):
        call(*case)
