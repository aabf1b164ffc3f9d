"""Decides whether a network needs AutoGraph.

AutoGraph ignores the code of TensorFlow and of Keras 3 but rewrites that of tf_keras, function by function, for about
eight seconds in each training process; nothing in tf_keras and in stillhouse's layers needs it. A user's layer may.
"""

import tf_keras as keras


def needs_autograph(network: keras.Model) -> bool:
    """Returns whether the network has layers written by the user, whose `call` may use Python control flow."""
    modules = (type(part).__module__ for part in (network, *network.submodules))
    return not all(
        name.startswith(("tf_keras.", "tensorflow.", "stillhouse.modules.text.", "stillhouse.modules.distillation."))
        for name in modules
    )
