import math
import subprocess
import sys

import pytest
import torch
from sklearn import metrics as sk

from plstm_graph.data.smiles import without_version_check
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.tasks import Binary, Multiclass, Ranking, Regression, Tokens, score


def test_values_are_those_of_scikit_learn() -> None:
    target, noise = torch.randn(50, 1), torch.randn(50, 1)
    prediction = target + 0.3 * noise
    found = Regression(("y",)).scores(prediction, target)
    assert found["r2"] == pytest.approx(sk.r2_score(target, prediction), abs=1e-5)
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(target, prediction), abs=1e-5)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(target, prediction), abs=1e-5)
    label, chance = (target > 0).float(), prediction.sigmoid()
    found = Binary(("y",)).scores(chance, label)
    assert found["rocauc"] == pytest.approx(sk.roc_auc_score(label, chance), abs=1e-5)
    assert found["ap"] == pytest.approx(sk.average_precision_score(label, chance), abs=1e-5)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(label, chance > 0.5), abs=1e-5)


def test_scores_of_quantities_import_no_scikit_learn() -> None:
    script = "import sys, torch; from plstm_graph.tasks import Regression\n"
    script += "print(Regression(('y',)).scores(torch.rand(5, 1), torch.rand(5, 1))); print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_classes() -> None:
    prediction = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3]])
    assert score("accuracy", prediction, torch.tensor([0, 1, 2])) == pytest.approx(2 / 3)


def test_missing_labels_do_not_count_and_targets_are_averaged() -> None:
    target = torch.tensor([[1.0, math.nan], [2.0, 10.0], [math.nan, 20.0]])
    prediction = torch.tensor([[1.5, 7e9], [2.5, 11.0], [7e9, 21.0]])
    assert score("mae", prediction, target) == pytest.approx((0.5 + 1.0) / 2)


def test_a_target_without_both_classes_is_left_out() -> None:
    target = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    prediction = torch.tensor([[0.1, 0.2], [0.9, 0.3]])
    assert score("rocauc", prediction, target) == 1.0
    assert math.isnan(score("rocauc", prediction[:, 1:], target[:, 1:]))


def test_empty_split() -> None:
    for name in ("r2", "mae", "rocauc"):
        assert math.isnan(score(name, torch.empty(0, 1), torch.empty(0, 1)))


def test_unknown_metric_names_the_choices_of_the_task() -> None:
    with pytest.raises(ConfigError, match="choose one of r2, rmse, mae, pearson"):
        Regression(("y",)).with_metric("rocauc")
    assert Regression(("y",)).with_metric("rmse").rule.label == "RMSE"
    assert Regression(("y",), "mae").with_metric(None).metric == "mae"


def test_a_split_that_cannot_be_scored_is_refused() -> None:
    with pytest.raises(DataError, match="ROC-AUC needs at least two different labels in the valid split"):
        Binary(("y",)).check_defined(torch.ones(5, 1), "valid")
    with pytest.raises(DataError, match="R²"):
        Regression(("y",)).check_defined(torch.ones(5, 1), "valid")
    Multiclass(("class",)).check_defined(torch.tensor([1, 1]), "valid")
    Regression(("y",), "mae").check_defined(torch.ones(5, 1), "valid")


def test_pearson_and_rmse() -> None:
    target, noise = torch.randn(50, 1), torch.randn(50, 1)
    want = torch.corrcoef(torch.cat([target, target + noise], 1).T)[0, 1]
    assert score("pearson", target + noise, target) == pytest.approx(float(want), abs=1e-5)
    assert score("pearson", 3 * target - 1, target) == pytest.approx(1.0)
    assert math.isnan(score("pearson", torch.ones(50, 1), target))
    assert math.isnan(score("pearson", target, torch.ones(50, 1)))
    assert score("rmse", torch.tensor([[1.0], [5.0]]), torch.tensor([[1.0], [1.0]])) == pytest.approx(8**0.5)


def test_f1_of_words_by_hand() -> None:
    target = torch.tensor([[0, 1, -1], [0, 0, 7], [3, -1, -1]])
    prediction = torch.tensor([[1, 0], [0, 4], [-1, -1]])  # all; one of two, and one of two words; none
    assert score("f1", prediction, target) == pytest.approx((1 + 0.5 + 0) / 3)
    task = Tokens(("word 1", "word 2"))
    assert set(task.scores(prediction, target)) == {"f1"}
    task.check_defined(target, "valid")


def test_a_prediction_that_is_not_finite_has_no_score() -> None:
    target = torch.tensor([[0.0], [1.0], [1.0]])
    for name in ("rocauc", "ap", "mae", "r2", "accuracy"):
        assert math.isnan(score(name, torch.tensor([[0.1], [math.nan], [0.2]]), target))


@pytest.mark.parametrize("targets", [1, 12])
def test_rocauc_and_ap_are_those_of_scikit_learn_and_ogb(targets: int) -> None:
    with without_version_check():
        from ogb.graphproppred import Evaluator

    generator = torch.Generator().manual_seed(3)
    prediction = (torch.rand(400, targets, generator=generator) * 50).round() / 50  # with ties
    target = (torch.rand(400, targets, generator=generator) < 0.2 + 0.4 * prediction).float()
    if targets > 1:
        target[torch.rand(400, targets, generator=generator) < 0.3] = math.nan
        target[:, 0] = 0.0  # one class only: no part of the mean
    columns = [(p[~t.isnan()].numpy(), t[~t.isnan()].numpy()) for p, t in zip(prediction.T, target.T, strict=True)]
    for name, function in (("rocauc", sk.roc_auc_score), ("ap", sk.average_precision_score)):
        wanted = [function(t, p) for p, t in columns if len(set(t)) == 2]
        assert score(name, prediction, target) == pytest.approx(sum(wanted) / len(wanted), abs=1e-6)
    whole = {"y_true": target.numpy(), "y_pred": prediction.numpy()}
    for data, name in (("ogbg-molhiv" if targets == 1 else "ogbg-moltox21", "rocauc"), ("ogbg-molpcba", "ap")):
        evaluator = Evaluator(data)
        evaluator.num_tasks = targets
        assert score(name, prediction, target) == pytest.approx(evaluator.eval(whole)[name], abs=1e-6)


def test_kendall_counts_pairs() -> None:
    target = torch.tensor([[1.0], [2.0], [3.0], [math.nan]])
    prediction = torch.tensor([[0.1], [7.0], [3.0], [9.0]])  # two pairs of three in order
    assert Ranking(("y",)).scores(prediction, target)["kendall"] == pytest.approx(1 / 3)


def test_ranking_learns_from_pairs_by_hand() -> None:
    output = torch.tensor([[1.0], [1.2], [5.0], [0.0]], requires_grad=True)
    target = torch.tensor([[10.0], [20.0], [30.0], [math.nan]])
    loss = Ranking(("y",)).loss(output, target)
    assert loss.item() == pytest.approx((0.5 - 0.2) / 3)  # of three pairs one leads by less than the margin
    (gradient,) = torch.autograd.grad(loss, output)
    assert gradient.flatten().tolist() == pytest.approx([1 / 3, -1 / 3, 0, 0])
    assert Ranking(("y",)).loss(output, torch.ones(4, 1)).item() == 0
