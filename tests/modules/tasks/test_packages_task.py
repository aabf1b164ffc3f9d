import numpy as np
import tensorflow as tf

from stillhouse.modules.tasks import packages
from stillhouse.modules.tasks.packages import CLASSES, LENGTH, TOKENS
from stillhouse.pipelines.example_data.packages import PACKAGES


def test_the_networks_have_a_class_for_each_package_of_the_data():
    assert len(PACKAGES) == CLASSES


def test_the_student_is_at_least_ten_times_smaller_than_one_teacher():
    assert packages.build_teacher().count_params() >= 10 * packages.build_student().count_params()


def test_a_teacher_starts_from_the_language_models_bag_and_leaves_it_as_it_is():
    language_model, teacher = packages.build_language_model(width=4, pairs=8), packages.build_teacher(width=4, pairs=8)
    named = {weight.name: weight.shape for weight in language_model.get_layer("bag").weights}
    assert {weight.name: weight.shape for weight in teacher.get_layer("bag").weights} == named
    assert {weight.name.partition("/")[0] for weight in teacher.trainable_weights} == {"classes"}


def test_augment_leaves_out_half_of_the_words_by_its_seed():
    features = {TOKENS: tf.fill([50, LENGTH], tf.constant(7, tf.int64))}
    first = packages.augment(features, tf.constant([1, 2]))[TOKENS].numpy()
    assert set(np.unique(first)) == {0, 7}
    assert 0.45 < (first == 0).mean() < 0.55
    np.testing.assert_array_equal(first, packages.augment(features, tf.constant([1, 2]))[TOKENS])
    assert (first != packages.augment(features, tf.constant([1, 3]))[TOKENS].numpy()).any()
