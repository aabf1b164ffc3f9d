"""Views of batches, each change against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.views import (
    PARTNER,
    SHARE,
    Views,
    beta_shares,
    check_changes,
    make_views,
    partners,
    standard_deviations,
)
from stillhouse.modules.settings import InputChanges

SEED = np.array([3, 5], np.int32)
COUNT = 400
SPEC = {
    "x": tf.io.FixedLenFeature([3], tf.float32),
    "id": tf.io.FixedLenFeature([2], tf.int64),
    "word": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
}


def batch():
    random = np.random.RandomState(1)
    features = {
        "x": tf.constant(random.normal(size=[COUNT, 3]), tf.float32),
        "id": tf.range(2 * COUNT, dtype=tf.int64)[:, None][:COUNT] + tf.constant([[0, COUNT]], tf.int64),
        "word": tf.strings.as_string(tf.range(COUNT)),
    }
    return features, tf.constant(random.randint(0, 4, COUNT), tf.int64), {"logits": tf.zeros([COUNT, 1, 4])}


def write(path, columns):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in range(len(columns["x"])):
            example = tf.train.Example()
            example.features.feature["x"].float_list.value.extend(columns["x"][row])
            writer.write(example.SerializeToString())
    return [str(path)]


def test_standard_deviations_are_numpys_and_those_of_finite_values(tmp_path):
    x = (np.random.RandomState(2).normal(size=[700, 3]) * [1, 50, 0] + [1e4, 3, 7]).astype(np.float32)
    files = write(tmp_path / "x", {"x": x})
    deviations = standard_deviations(files, {"x": SPEC["x"]})["x"]
    np.testing.assert_allclose(deviations, x.astype(np.float64).std(axis=0), rtol=1e-6)
    x[4, 1] = np.nan
    deviations = standard_deviations(write(tmp_path / "x", {"x": x}), {"x": SPEC["x"]})["x"]
    np.testing.assert_allclose(deviations, np.nanstd(x.astype(np.float64), axis=0), rtol=1e-6)


def test_noise_has_the_deviation_of_the_feature_and_a_constant_element_gets_none(tmp_path):
    x = (np.random.RandomState(2).normal(size=[2000, 3]) * [1, 50, 0]).astype(np.float32)
    spec = {"x": SPEC["x"], "label": SPEC["label"]}
    views = make_views(InputChanges(noise=0.3), spec, "label", write(tmp_path / "x", {"x": x}), None)
    features, labels, targets = views(({"x": tf.constant(x)}, tf.zeros([2000], tf.int64), {}), SEED)
    noise = features["x"].numpy() - x
    np.testing.assert_allclose(noise.std(axis=0), 0.3 * x.std(axis=0), rtol=0.06)
    assert not noise[:, 2].any()
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.1
    assert not targets
    assert not labels.numpy().any()


def test_swap_takes_each_element_from_another_example_at_the_set_rate():
    features, labels, targets = batch()
    views = Views(swap={"id": 0.25, "word": 0.5, "x": 1.0})
    changed, same_labels, _ = views((features, labels, targets), SEED)
    before, after = features["id"].numpy(), changed["id"].numpy()
    swapped = before != after
    np.testing.assert_allclose(swapped.mean(), 0.25, atol=0.05)
    assert (swapped[:, 0] != swapped[:, 1]).any()
    # Each value stays in its column: those of the second are COUNT and more.
    assert set(after[:, 0]) <= set(before[:, 0])
    assert set(after[:, 1]) <= set(before[:, 1])
    np.testing.assert_allclose((features["word"].numpy() != changed["word"].numpy()).mean(), 0.5, atol=0.08)
    assert set(changed["word"].numpy()) <= set(features["word"].numpy())
    # With a probability of 1 an example is its partner.
    assert (changed["x"].numpy() != features["x"].numpy()).all()
    np.testing.assert_array_equal(np.sort(changed["x"], axis=0), np.sort(features["x"], axis=0))
    np.testing.assert_array_equal(same_labels, labels)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_partners_are_a_permutation_without_fixed_points(count):
    values = tf.range(count)
    found = partners(values, SEED).numpy()
    assert sorted(found) == list(range(count))
    assert count < 2 or (found != values.numpy()).all()


@pytest.mark.parametrize("a", [0.1, 1.0, 5.0])
def test_shares_have_the_moments_of_a_folded_beta(a):
    shares = beta_shares(20_000, a, SEED).numpy()
    drawn = np.random.RandomState(0).beta(a, a, 200_000)
    folded = np.maximum(drawn, 1 - drawn)
    assert shares.min() >= 0.5
    assert shares.max() <= 1.0
    np.testing.assert_allclose([shares.mean(), shares.std()], [folded.mean(), folded.std()], atol=0.01)


def test_shares_of_a_tiny_beta_are_numbers():
    assert np.isfinite(beta_shares(5000, 1e-3, SEED)).all()


def test_mixup_mixes_features_and_hands_on_the_partners_label_and_the_share():
    features, labels, targets = batch()
    features = {"x": features["x"], "wide": tf.reshape(features["x"], [COUNT, 3, 1])}
    # The label of an example tells which it is.
    labels = tf.range(COUNT, dtype=tf.int64)
    changed, same_labels, more = Views(mixup=0.8, features=["wide", "x"])((features, labels, targets), SEED)
    np.testing.assert_array_equal(same_labels, labels)
    assert set(more) == {"logits", PARTNER, SHARE}
    x, partner, share = features["x"].numpy(), more[PARTNER].numpy(), more[SHARE].numpy()[:, None]
    mixed = share * x + (1 - share) * x[partner]
    np.testing.assert_allclose(changed["x"], mixed, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(changed["wide"][..., 0], mixed, rtol=1e-5, atol=1e-6)
    assert (partner != np.arange(COUNT)).all()


def test_a_view_is_a_function_of_the_seed():
    views = Views(noise={"x": np.ones([3], np.float32)}, swap={"id": 0.3}, mixup=1.0, features=["x"])
    first, again, other = (views(batch(), seed)[0]["x"].numpy() for seed in (SEED, SEED, np.array([3, 6], np.int32)))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9


def test_a_feature_that_augment_leaves_out_is_not_changed():
    changes = {"noise": {"x": np.ones(3, np.float32)}, "swap": {"x": 0.5, "id": 0.5, "word": 0.5}}
    left = Views(augment=lambda features, seed: {"word": features["word"]}, mixup=1.0, features=["x"], **changes)
    features, _, targets = left(batch(), SEED)
    expected, _, _ = Views(**changes)(batch(), SEED)
    assert list(features) == ["word"]
    np.testing.assert_array_equal(features["word"], expected["word"])
    assert PARTNER in targets


def test_changes_are_applied_in_order_augment_noise_swap_mixup():
    seeds = []

    def augment(features, seed):
        seeds.append(seed)
        return {"x": features["x"] * 0.0}

    features, labels, targets = batch()
    views = Views(augment=augment, noise={"x": np.ones([3], np.float32)}, swap={"x": 0.5}, mixup=1.0, features=["x"])
    changed = views(({"x": features["x"]}, labels, targets), SEED)[0]["x"].numpy()
    np.testing.assert_array_equal(seeds[0], SEED)
    noisy = Views(augment=augment, noise=views.noise)(({"x": features["x"]}, labels, targets), SEED)[0]
    swapped = Views(swap=views.swap)((noisy, labels, targets), SEED)
    np.testing.assert_allclose(Views(mixup=1.0, features=["x"])(swapped, SEED)[0]["x"], changed, rtol=1e-6)


KINDS = {name: spec.dtype for name, spec in SPEC.items() if name != "label"}


@pytest.mark.parametrize(
    ("changes", "kinds", "message"),
    [
        ({"noise": {"id": 0.1}}, KINDS, r"noise: found the feature 'id' of type int64; .* set swap: \{id: ...\} inst"),
        ({"noise": {"word": 0.1}}, KINDS, "noise: found the feature 'word' of type string; expected float features"),
        ({"noise": 0.1}, {"id": tf.int64}, "noise: found no float feature among id; set swap instead"),
        ({"mixup": 0.1}, KINDS, "mixup: found the feature 'id' of type int64; .*set swap instead of mixup"),
        ({"swap": {"no": 0.1}}, KINDS, "student.swap: found the feature 'no'; expected one of: id, word, x"),
    ],
)
def test_a_change_that_does_not_fit_a_feature_is_refused_by_its_name(changes, kinds, message):
    with pytest.raises(UserError, match=message):
        check_changes(InputChanges(**changes), kinds, "student.")


def test_noise_without_names_is_of_the_float_features(tmp_path):
    files = write(tmp_path / "x", {"x": np.eye(3, dtype=np.float32)})
    assert set(make_views(InputChanges(noise=0.1), SPEC, "label", files, None).noise) == {"x"}
    assert set(make_views(InputChanges(swap=0.1), SPEC, "label", files, None).swap) == {"x", "id", "word"}
