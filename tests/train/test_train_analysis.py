import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from plstm_graph.tasks import Multiclass, Regression, score
from plstm_graph.train import analysis
from plstm_graph.train.record import PartPredictions


def made(prediction: np.ndarray, target: np.ndarray) -> PartPredictions:
    return PartPredictions(np.arange(len(target)), [""] * len(target), target, prediction)


@pytest.fixture
def regression() -> PartPredictions:
    random = np.random.default_rng(0)
    target = random.normal(size=(80, 1))
    return made(target + 0.5 * random.normal(size=(80, 1)), target)


@pytest.fixture
def binary() -> PartPredictions:
    random = np.random.default_rng(1)
    probability = random.random((400, 1))
    return made(probability, (random.random((400, 1)) < probability**2).astype(float))


def test_intervals_are_those_of_scipy(regression: PartPredictions) -> None:
    """Percentiles of another random stream: equal up to the error of 1,000 samples."""
    ours = analysis.bootstrap(regression, ["mae"], analysis.draws(80, 1))["mae"]
    error = np.abs(regression.prediction - regression.target)[:, 0]
    theirs = scipy_bootstrap((error,), np.mean, method="percentile", n_resamples=5000, rng=0).confidence_interval
    assert ours.value == pytest.approx(error.mean(), rel=1e-5)
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.1 * width)


def test_the_same_samples_again_but_for_another_seed() -> None:
    assert np.array_equal(analysis.draws(50, 1), analysis.draws(50, 1))
    assert not np.array_equal(analysis.draws(50, 1), analysis.draws(50, 1, seed=1))
    assert analysis.draws(50, 1).shape == (1000, 50)
    assert len(analysis.draws(40_000, 128)) == 100


def test_samples_of_one_class_are_left_out() -> None:
    target = np.array([[1.0], [0.0], [0.0], [0.0]])
    found = made(np.array([[0.9], [0.1], [0.2], [0.95]]), target)
    interval = analysis.bootstrap(found, ["rocauc"], analysis.draws(4, 1))["rocauc"]
    assert interval.value == pytest.approx(roc_auc_score(target, found.prediction))
    assert 0 <= interval.low < interval.high <= 1
    nothing = analysis.bootstrap(made(found.prediction, np.ones((4, 1))), ["rocauc"], analysis.draws(4, 1))["rocauc"]
    assert np.isnan(nothing).all()


@pytest.mark.parametrize("name", ["rocauc", "ap"])
def test_all_samples_at_once_are_what_each_is_by_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties, missing labels, samples and targets of one class; in blocks of three samples."""
    random = np.random.default_rng(2)
    target = (random.random((30, 4)) < [0.5, 0.9, 0.04, 1]).astype(float)
    target[random.random((30, 4)) < 0.3] = np.nan
    found = made(np.round(random.random((30, 4)), 1), target)
    samples = analysis.draws(30, 4)[:40]
    alone = [score(name, *analysis._tensors(made(found.prediction[rows], target[rows]))) for rows in samples]
    monkeypatch.setattr("plstm_graph.tasks.resampled.AT_ONCE", 100)
    monkeypatch.setattr(analysis, "score", None)  # no sample is scored by itself
    np.testing.assert_allclose(analysis.resampled(found, name, samples), alone, rtol=1e-12)
    nothing = made(found.prediction[:, 3:], target[:, 3:])
    assert np.isnan(analysis.resampled(nothing, name, samples)).all()


def test_paired_differences_are_narrower_and_signed(regression: PartPredictions) -> None:
    """A model that errs by a tenth less on every graph is better for sure, though the intervals of both overlap."""
    better = made(regression.target + 0.9 * (regression.prediction - regression.target), regression.target)
    samples = analysis.draws(80, 1)
    found = analysis.paired([(regression, better)], "rmse")
    alone = [analysis.bootstrap(run, ["rmse"], samples)["rmse"] for run in (regression, better)]
    assert alone[1].high > alone[0].low
    assert found.over_graphs.low > 0
    assert np.isnan(found.over_runs.low)
    assert (found.pairs, found.better, found.sign) == (1, 1, 1)
    assert found.over_graphs.value == pytest.approx(alone[0].value - alone[1].value, rel=1e-4)
    assert analysis.paired([(better, regression)], "r2").sign == -1


def test_pairs_of_runs_have_students_interval_wider_where_tests_differ() -> None:
    random = np.random.default_rng(0)
    pairs = []
    for _ in range(4):  # on test graphs of their own
        target = random.normal(size=(60, 1))
        pairs.append(tuple(made(target + size * random.normal(size=(60, 1)), target) for size in (0.6, 0.4)))
    found = analysis.paired(pairs, "mae", share=0.25)
    gains = [analysis.scored(one, "mae") - analysis.scored(other, "mae") for one, other in pairs]
    mean, deviation = np.mean(gains), np.std(gains, ddof=1)
    reach = 3.182446 * deviation * np.sqrt(1 / 4 + 0.25)  # t of three degrees of freedom
    assert found.over_runs == pytest.approx((mean, mean - reach, mean + reach), rel=1e-5)
    assert found.over_graphs.low < mean < found.over_graphs.high
    assert (found.pairs, found.better) == (4, 4)
    again = [pairs[0]] * 4  # one test: nothing to widen, and no spread
    assert analysis.paired(again, "mae", share=0.25).over_runs == pytest.approx((gains[0],) * 3)


def test_an_interval_that_holds_nothing_tells_nothing_apart() -> None:
    target = np.random.default_rng(1).normal(size=(40, 1))
    one, other = (made(target + np.random.default_rng(seed).normal(size=(40, 1)), target) for seed in (2, 3))
    assert analysis.paired([(one, other)], "mae").sign == 0
    assert analysis.paired([], "mae").pairs == 0
    constant = made(target, np.ones((40, 1)))
    assert analysis.paired([(constant, constant)], "r2")[:2] == (0, 0)


def test_the_same_graphs_have_the_same_labels(regression: PartPredictions) -> None:
    assert analysis.same_graphs([regression, made(regression.prediction + 1, regression.target)])
    assert not analysis.same_graphs([regression, made(regression.prediction, regression.target + 1)])


def test_reliability_is_that_of_scikit_learn(binary: PartPredictions) -> None:
    found = analysis.reliability(binary)
    frequency, confidence = calibration_curve(binary.target[:, 0], binary.prediction[:, 0], n_bins=10)
    np.testing.assert_allclose(found.frequency, frequency)
    np.testing.assert_allclose(found.confidence, confidence)
    assert found.counts.sum() == 400
    assert found.error == pytest.approx(np.average(np.abs(frequency - confidence), weights=found.counts))
    assert 0.1 < found.error < 0.25  # the mean of p - p² is 1/6


def test_reliability_of_classes_and_of_the_ends() -> None:
    sure = made(np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.4]]), np.array([0, 1, 1]))
    found = analysis.reliability(sure)
    assert found.counts.tolist() == [1, 2]
    assert found.frequency.tolist() == [0, 1]
    assert found.error == pytest.approx(0.2)


def test_the_worst_are_measured_by_the_spread_of_their_target() -> None:
    target = np.array([[0.0, 0.0], [1.0, 1000.0], [2.0, 2000.0], [np.nan, np.nan]])
    found = made(target + np.array([[1.0, 0.0], [0.0, 300.0], [0.0, 0.0], [9.0, 9.0]]), target)
    assert analysis.worst(analysis.errors(found, Regression), 9) == [0, 1, 2]  # what has no label is not wrong
    classes = made(np.array([[0.2, 0.8], [0.9, 0.1]]), np.array([0, 0]))
    assert analysis.worst(analysis.errors(classes, Multiclass), 1) == [0]
