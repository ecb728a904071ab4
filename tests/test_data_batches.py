"""Scaling of images, class-balanced batches, and data sets of other libraries."""

import subprocess
import sys
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from maxaffine.data import Balanced, Dataset, as_dataset, load, normalise
from maxaffine.errors import InputError

Image = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(0)


# Scaling.


def by_hand(images):
    out = []
    for image in np.asarray(images, np.float64):
        centred = image - image.mean()
        largest = abs(centred).max()
        out.append(centred / largest if largest else centred)
    return np.stack(out)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (3, 7), (2, 1, 1, 4)])
def test_normalise_is_the_papers_formula(dtype, shape):
    images = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 255).to(dtype)
    scaled = normalise(images)
    floating = dtype.is_floating_point
    assert scaled.shape == shape
    assert scaled.dtype == (dtype if floating else torch.float32)
    tolerance = {torch.float16: 4e-3, torch.float64: 1e-14}.get(dtype, 1e-6)
    assert abs(scaled.numpy() - by_hand(images)).max() < tolerance
    assert scaled.flatten(1).abs().amax(1).sub(1).abs().max() < 1e-3
    if not floating:
        assert torch.equal(normalise(images.numpy()), scaled)


def test_normalise_does_not_see_brightness_and_contrast():
    images = torch.randn(5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert (normalise(images * 7 + 30) - normalise(images)).abs().max() < 1e-13
    assert (normalise(-images) + normalise(images)).abs().max() < 1e-13


@pytest.mark.parametrize("value", [0.0, 0.1, 7.0, 1 / 3, -1e30, 255])
@pytest.mark.parametrize("pixels", [3, 27, 3072])
def test_constant_images_become_zeros(value, pixels):
    # In float32 the mean of 3072 times 0.1 is not 0.1: scaled by what is left, the image would be all ones.
    scaled = normalise(torch.full((2, pixels), value))
    assert torch.equal(scaled, torch.zeros(2, pixels))


def test_normalise_leaves_its_input_and_is_differentiable():
    images = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    before = images.clone()
    normalise(images)
    assert torch.equal(images, before)
    assert torch.autograd.gradcheck(normalise, images.requires_grad_())


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.tensor([[1.0, 2.0], [3.0, float("nan")]]), "image 1 holds NaN or infinite"),
        (torch.tensor([[1.0, float("inf")]]), "image 0 holds NaN or infinite"),
        (torch.zeros(3), r"torch.float32 \(3,\); give real numbers of shape"),
        (torch.zeros(3, 0), r"\(3, 0\)"),
        (torch.zeros(2, 2, dtype=torch.complex64), "complex64"),
        (None, "images is None; give real numbers of shape"),
        (np.array([["a"]]), "images is a ndarray"),
    ],
)
def test_images_that_cannot_be_scaled(images, words):
    with pytest.raises(InputError, match=words) as error:
        normalise(images)
    assert "\n" not in str(error.value)


# Balanced batches.

LABELS = torch.from_numpy(RNG.permutation(np.repeat([0, 1, 2, 3], [9, 14, 11, 20])))  # 54 rows


def test_every_batch_holds_as_many_rows_of_each_class_and_none_twice():
    sampler = Balanced(LABELS, 12, seed=5)
    for epoch in range(20):
        batches = sampler.batches(epoch)
        assert batches.shape == (54 // 12, 12) == (len(sampler), 12)
        for batch in batches.tolist():
            assert Counter(LABELS[batch].tolist()) == dict.fromkeys(range(4), 3)
            assert len(set(batch)) == 12


def test_rows_of_a_class_are_equally_likely_in_a_batch_and_in_pairs():
    """Counts of rows and of pairs of rows over many batches against their binomial mean, within 5 deviations."""
    labels = [0] * 5 + [1] * 4
    sampler = Balanced(labels, 4, seed=0)
    batches = torch.cat([sampler.batches(epoch) for epoch in range(6000)]).numpy()
    n = len(batches)
    assert n == 12000
    once = np.bincount(batches.ravel(), minlength=9)
    for row, p in enumerate([2 / 5] * 5 + [2 / 4] * 4):
        assert abs(once[row] - n * p) < 5 * (n * p * (1 - p)) ** 0.5
    pairs = Counter(tuple(sorted(batch[:2])) for batch in batches.tolist())
    assert len(pairs) == 10
    for count in pairs.values():
        assert abs(count - n / 10) < 5 * (n * 0.09) ** 0.5
    # Batches that follow each other are independent: half of the rows of class 1 come again half of the time.
    again = sum(len({*a[2:]} & {*b[2:]}) for a, b in zip(batches[::2], batches[1::2], strict=True)) / (n / 2)
    assert abs(again - 1) < 0.05


def test_draws_depend_on_seed_and_epoch_alone():
    one, other = Balanced(LABELS, 8, seed=3), Balanced(LABELS, 8, seed=3)
    run = [list(one) for _ in range(4)]  # an uninterrupted run
    other.set_epoch(2)  # one that was killed after two epochs
    assert [list(other), list(other)] == run[2:]
    assert run == [one.batches(epoch).tolist() for epoch in range(4)]
    assert len({str(epoch) for epoch in run}) == 4
    assert Balanced(LABELS, 8, seed=4).batches(0).tolist() != run[0]
    state = np.random.get_state()[1].copy()
    torch_state = torch.get_rng_state()
    list(one)
    assert (np.random.get_state()[1] == state).all() and torch.equal(torch.get_rng_state(), torch_state)


def test_draws_stay_what_they_were():
    """A resumed run may be another process, another day: the first batches are written down."""
    assert Balanced([0, 1] * 6, 4, seed=1).batches(2).tolist() == [[6, 4, 1, 5], [0, 2, 1, 9], [10, 0, 9, 5]]


def test_it_is_a_batch_sampler_of_torch():
    rows = torch.arange(54, dtype=torch.float32)[:, None]
    sampler = Balanced(LABELS, 12, seed=5)
    loader = DataLoader(TensorDataset(rows, LABELS), batch_sampler=sampler)
    assert len(loader) == 4
    for epoch in range(2):  # the loader asks anew in each epoch, and draws anew
        found = [x[:, 0].long().tolist() for x, _ in loader]
        assert found == Balanced(LABELS, 12, seed=5).batches(epoch).tolist()


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda v: torch.tensor(v, dtype=torch.uint8)])
def test_labels_of_any_kind(kind):
    labels = kind([0, 1, 2, 2, 1, 0])
    assert Balanced(labels, 3).batches(1).tolist() == Balanced([0, 1, 2, 2, 1, 0], 3).batches(1).tolist()


def test_a_batch_may_hold_all_rows():
    assert Balanced([1, 0, 0, 1], 4).batches(0).sort().values.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        ([0, 1, 2], {"batch": 4}, "batch=4 is no multiple of the 3 classes; give 3"),
        ([0, 1, 2], {"batch": 1}, "batch=1 is no multiple of the 3 classes; give 3"),
        ([0, 1, 2], {"batch": 0}, "batch=0 is no multiple"),
        ([0, 1, 2], {"batch": -3}, "batch=-3 is no multiple"),
        ([0, 1, 1], {"batch": 4}, "class 0 has 1 rows, batch=4 needs 2 of each; give a smaller batch"),
        ([0, 2, 2], {"batch": 3}, "class 1 has 0 rows, batch=3 needs 1"),
        ([0, 1], {"batch": 3, "classes": 3}, "class 2 has 0 rows"),
        ([0, 3], {"batch": 2, "classes": 2}, "label 3: labels of 2 classes are from 0 to 1"),
        ([0, -1], {"batch": 2}, "label -1 of row 1: classes are numbered from 0"),
        ([0.0, 1.0], {"batch": 2}, r"labels are float64 \(2,\)"),
        ([[0], [1]], {"batch": 2}, r"labels are int64 \(2, 1\)"),
        ([], {"batch": 2}, r"\(0,\)"),
        ([0, 1], {"batch": 2, "seed": -1}, "seed=-1"),
        ([0, 1], {"batch": 2, "seed": 1.5}, "seed=1.5: give a number from 0 on"),
        ([0, 1], {"batch": 2.0}, "batch=2.0; give a whole number of rows"),
        ([0, 1], {"batch": None}, "batch=None"),
        ([0, 1], {"batch": 2, "classes": "two"}, "classes is 'two'; give a whole number"),
    ],
)
def test_batches_that_cannot_be_balanced(labels, options, words):
    with pytest.raises(InputError, match=words) as error:
        Balanced(labels, **options)
    assert "\n" not in str(error.value)


def test_an_epoch_is_numbered_from_0():
    with pytest.raises(InputError, match="epoch=-1"):
        Balanced([0, 1], 2).batches(-1)
    with pytest.raises(InputError, match=r"epoch=0\.5"):
        Balanced([0, 1], 2).set_epoch(0.5)


# Data sets of other libraries: stand-ins with their protocols.


class Pairs:
    """As torchvision's: an index gives an image, perhaps transformed, and its label."""

    def __init__(self, images, labels, transform=lambda image: image, classes=None):
        self.images, self.labels, self.transform = images, labels, transform
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return self.transform(self.images[row]), self.labels[row]


class Rows(Pairs):
    """As Hugging Face's: an index gives a dictionary, and features describe its columns."""

    def __init__(self, images, labels, transform, keys, names=None):
        super().__init__(images, labels, transform)
        self.keys = keys
        column = type("ClassLabel", (), {"names": names})()
        self.features = {keys[0]: object(), keys[1]: column if names else object()}

    def __getitem__(self, row):
        return {"id": row, **dict(zip(self.keys, super().__getitem__(row), strict=True))}


COLOUR = RNG.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]
FIRST = COLOUR.transpose(0, 3, 1, 2)
MARKS = [3, 0, 1, 1, 2]


def palette(image):
    return Image.fromarray(image // 128 * 255).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)


class Tagged(torch.Tensor):
    """A subclass of a tensor, as torchvision's tv_tensors."""


@pytest.mark.parametrize(
    ("stored", "transform", "wanted"),
    [
        (COLOUR, Image.fromarray, FIRST),
        (GREY, Image.fromarray, GREY[:, None]),
        (COLOUR, palette, FIRST // 128 * 255),
        (COLOUR, np.asarray, FIRST),
        (COLOUR, np.ndarray.tolist, FIRST),
        (FIRST, np.ascontiguousarray, FIRST),
        (GREY, np.asarray, GREY[:, None]),
        (FIRST, torch.from_numpy, FIRST),
        (FIRST, lambda x: torch.from_numpy(x).as_subclass(Tagged), FIRST),
        (FIRST, lambda x: (torch.from_numpy(x).float() / 255).requires_grad_(), FIRST.astype(np.float32) / 255),
        (COLOUR.reshape(5, -1), torch.from_numpy, COLOUR.reshape(5, -1)),
    ],
)
@pytest.mark.parametrize("protocol", ["pairs", "image/label", "img/fine_label"])
def test_images_of_every_kind_and_protocol(stored, transform, wanted, protocol):
    if protocol == "pairs":
        data = as_dataset(Pairs(stored, MARKS, transform, classes=["a", "b", "c", "d"]))
    else:
        data = as_dataset(Rows(stored, MARKS, transform, protocol.split("/"), names=["a", "b", "c", "d"]))
    assert np.array_equal(data.inputs, wanted)
    assert data.inputs.dtype == (wanted.dtype if transform is not np.ndarray.tolist else np.int64)
    assert data.labels.tolist() == MARKS and data.labels.dtype == np.int64
    assert data.classes == ("a", "b", "c", "d")
    assert data.source in ("Pairs", "Rows")


@pytest.mark.parametrize("label", [2, np.int32(2), np.array(2), torch.tensor(2), torch.tensor([2]), True + 1])
def test_labels_of_every_kind(label):
    assert as_dataset([(GREY[0], label)]).labels.tolist() == [2]


def test_torchs_own_data_sets_and_those_without_names():
    data = TensorDataset(torch.from_numpy(FIRST), torch.tensor(MARKS))
    found = as_dataset(Subset(data, [4, 0]))
    assert np.array_equal(found.inputs, FIRST[[4, 0]]) and found.labels.tolist() == [2, 3] and found.classes == ()
    assert as_dataset(Rows(FIRST, MARKS, np.asarray, ["image", "label"])).classes == ()


def test_limit_reads_the_first_rows_only():
    seen = []

    def watched(image):
        seen.append(image)
        return image

    data = as_dataset(Pairs(COLOUR, MARKS, watched), limit=2)
    assert len(data) == len(seen) == 2
    assert len(as_dataset(Pairs(COLOUR, MARKS), limit=100)) == 5
    with pytest.raises(InputError, match="limit is 0"):
        as_dataset(Pairs(COLOUR, MARKS), limit=0)


def test_a_dataset_stays_what_it_is():
    data = load("digits", train=False)
    same = as_dataset(data)
    assert same.inputs is data.inputs or np.shares_memory(same.inputs, data.inputs)
    assert as_dataset(data, limit=3).labels.tolist() == data.labels[:3].tolist()
    assert as_dataset(Dataset(data.inputs, None, (), "x"), limit=3).labels is None


@pytest.mark.parametrize("limit", [0, 1.5, "3"])
def test_a_limit_is_a_number_of_rows(limit):
    with pytest.raises(InputError, match=f"limit is {limit}"):
        as_dataset([(GREY[0], 1)], limit=limit)


def stream():
    yield GREY[0], 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (stream(), r"generator has no len\(\): give a map-style data set"),
        ([], "list is empty"),
        ({"train": 1, "test": 2}, r"dict\[0\] fails: give a data set that is indexed by row numbers"),
        ([GREY[0]], r"list\[0\] is a ndarray; an \(image, label\) pair"),
        ([(GREY[0], 1, 2)], r"list\[0\] is a tuple"),
        ([{"pixels": GREY[0], "label": 1}], r"list\[0\] holds pixels, label; rename its columns to image and label"),
        ([(GREY[0], 0), (GREY[0][:3], 0)], r"list\[1\] has shape \(1, 3, 7\), list\[0\] \(1, 6, 7\): resize them"),
        ([(GREY[0], 0.5)], r"list\[0\]: label 0.5; give one whole number"),
        ([(GREY[0], [0, 1])], r"list\[0\]: label \[0, 1\]"),
        ([(GREY[0], "cat")], r"list\[0\]: label 'cat'"),
        ([("image.png", 1)], r"list\[0\]: an image of <U9 \(\); give numbers"),
        ([(Image.fromarray(COLOUR[0]).convert("CMYK"), 1)], r"list\[0\]: colour mode CMYK; convert it to grey"),
        ([(torch.zeros(2, 2, dtype=torch.bfloat16), 1)], r"list\[0\]: .*BFloat16"),
        ([([[1], [2, 3]], 1)], r"list\[0\]: .*inhomogeneous"),
    ],
)
def test_what_is_no_data_set_is_said_in_one_line(data, words):
    with pytest.raises(InputError, match=words) as error:
        as_dataset(data)
    assert "\n" not in str(error.value)


def test_neither_torchvision_nor_datasets_is_imported():
    script = "import sys, maxaffine.data as d; d.load('digits'); print({'torchvision', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_way_from_a_data_set_to_batches_for_a_network():
    data = load("digits")
    x, y = normalise(data.inputs), torch.from_numpy(data.labels)
    for rows in islice(Balanced(y, 50, seed=0), 3):
        assert x[rows].shape == (50, 1, 8, 8) and y[rows].bincount().tolist() == [5] * 10
