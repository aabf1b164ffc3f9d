import pytest
import tf_keras as keras

from stillhouse.modules.training.keras_state import random_generators_in_variables, state_of_training


def random_generators() -> bool:
    return keras.backend.experimental.is_tf_random_generator_enabled()


@pytest.mark.parametrize("before", [True, False])
def test_what_a_training_changes_in_keras_is_put_back_when_it_fails(before):
    def fail():
        with state_of_training(seed=1):
            assert random_generators()
            keras.mixed_precision.set_global_policy("mixed_bfloat16")
            raise RuntimeError("the pump is broken")

    with random_generators_in_variables(before):
        with pytest.raises(RuntimeError, match="the pump is broken"):
            fail()
        assert random_generators() == before
    assert keras.mixed_precision.global_policy().name == "float32"


def test_a_training_begins_with_fresh_names_and_its_seed():
    def made():
        with state_of_training(seed=1):
            layer = keras.layers.Dense(2)
            layer.build([None, 3])
            return layer.name, layer.kernel.numpy().tolist()

    assert made() == made()
    assert made()[0] == "dense"
