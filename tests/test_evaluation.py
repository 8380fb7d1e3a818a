"""Accuracy, intervals, comparisons, and which class a label means."""

import math

import numpy as np
import pytest

from npmobilenet.evaluation import Evaluation, mcnemar, rank, same_classes, share
from npmobilenet.labels import Labels, imagenet_classes, imagenet_synsets


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # Solutions of |p - count / total| = z * sqrt(p * (1 - p) / total), by hand or by bisection.
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (8, 10, 0.49016, 0.94331), (1, 1, 0.20655, 1.0)],
)
def test_wilson_interval(count, total, low, high):
    found = share(count, total)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-5), pytest.approx(high, abs=1e-5))
    for limit in (found.low, found.high):
        if 0 < limit < 1:
            assert abs(limit - found.value) == pytest.approx(1.959964 * math.sqrt(limit * (1 - limit) / total), 1e-6)


def test_interval_of_many():
    found = share(35939, 50000)
    assert found.low < found.value == 0.71878 < found.high and found.high - found.low == pytest.approx(
        0.00788, abs=1e-5
    )


def test_mcnemar_is_the_exact_binomial_test():
    for first, second in [(0, 0), (1, 9), (9, 1), (5, 5), (0, 7), (30, 55)]:
        total = first + second
        tail = sum(math.comb(total, k) for k in range(min(first, second) + 1)) / 2**total
        assert mcnemar(first, second) == pytest.approx(min(1, 2 * tail), rel=1e-9)
    assert mcnemar(100_000, 101_000) == pytest.approx(math.erfc(999 / math.sqrt(2 * 201_000)), rel=1e-3)


def test_rank_is_the_place_in_the_order_of_model_top():
    logits = np.array([1.0, 3.0, 3.0, 2.0, 3.0])
    order = np.argsort(-logits, kind="stable")
    assert [rank(logits, label) for label in order] == list(range(5))


def test_two_networks_with_different_numbers_for_the_same_classes():
    evaluation = Evaluation(["cat", "dog", "cat"], ["background", "Dog", "cat", "cat"])
    rows = {  # cat 0 and 2 of the first are 2 and 3 of the second
        "both right": (0, [1, 0, 0], [0, 0, 1, 0]),
        "first right": (0, [1, 0, 0], [0, 1, 0, 0]),
        "second right": (2, [1, 0, 0], [0, 0, 0, 1]),
        "neither": (1, [1, 0, 0], [1, 0, 0, 0]),
        "the other cat": (0, [0, 0, 1], [0, 0, 0, 1]),
        "without a label": (None, [0, 1, 0], [0, 1, 0, 0]),
    }
    for name, (label, first, second) in rows.items():
        evaluation.add(name, label, (np.array(first, float), np.array(second, float)))
    one, two = evaluation.tallies
    assert (one.top1.count, two.top1.count, one.top1.total, two.top5.count) == (2, 2, 5, 5)
    assert one.mistakes == {(2, 0): 1, (1, 0): 1, (0, 2): 1} and two.mistakes == {(2, 1): 1, (1, 0): 1, (2, 3): 1}
    comparison = evaluation.comparison
    assert [one.name for one in comparison.differences] == ["first right", "second right", "neither"]
    assert comparison.agreement.count == 3 and comparison.chance == 1
    assert [comparison.right[key] for key in ((True, True), (True, False), (False, True), (False, False))] == [
        1,
        1,
        1,
        2,
    ]
    assert not Evaluation(["cat", "bird"], ["cat"]).knows(1)
    with pytest.raises(ValueError, match="no class in common"):
        Evaluation(["cat"], ["dog"])
    assert same_classes(("background", *imagenet_classes()), imagenet_classes())[0] == 1


def test_labels_however_they_are_written():
    labels = Labels(imagenet_classes())
    for label in ("Golden Retriever", "golden_retriever", "golden-retriever", "207", "class 207", "class_0207",
                  "n02099601", "golden retriever, dog"):  # fmt: skip
        assert labels.index(label) == 207, label
    assert Labels(("background", *imagenet_classes())).index("n02099601") == 208
    for names in (imagenet_classes(), imagenet_synsets()):
        assert [labels.index(name) for name in names] == list(range(1000))
    assert labels.index("Cardigan") == 264 and labels.index("cardigan") == 474
    with pytest.raises(ValueError, match="'CARDIGAN' names the classes 264, 474: give the number"):
        labels.index("CARDIGAN")
    for label in ("1000", "class 1000", "", "-1", "class -1", "1.0", "9" * 500, "n00000000", "²"):
        with pytest.raises(ValueError, match=r"there are 1000 classes|nearest"):
            labels.index(label)
    with pytest.raises(ValueError, match=r"'goldn retriever' \(nearest: 'golden retriever'"):
        labels.index("goldn retriever")


def test_names_come_before_numbers_and_twins_need_them():
    labels = Labels(["1", "2", "crane", "crane"])
    assert labels.index("1") == 0 and labels.index("3") == 3 and labels.index("class 1") == 1
    with pytest.raises(ValueError, match="'crane' names the classes 2, 3: give the number"):
        labels.index("crane")
    assert [labels.shown(index) for index in range(4)] == ["1", "2", "crane (2)", "crane (3)"]


def test_synsets_are_in_the_order_of_the_classes():
    synsets = imagenet_synsets()
    assert len(set(synsets)) == 1000 and list(synsets) == sorted(synsets)
