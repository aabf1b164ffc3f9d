"""Where AutoGraph is needed, and where it only costs time.

AutoGraph leaves the code of TensorFlow and of Keras 3 alone but rewrites that of tf_keras, function by function, for
some eight seconds in each process that trains; nothing in tf_keras and in our own layers needs it. A layer of the
user's own may.
"""

import tf_keras as keras


def needs_autograph(network: keras.Model) -> bool:
    """Returns whether the network has layers of a user's own, whose `call` may use Python control flow."""
    modules = (type(part).__module__ for part in (network, *network.submodules))
    return not all(
        name.startswith(("tf_keras.", "tensorflow.", "stillhouse.modules.text.", "stillhouse.modules.distillation."))
        for name in modules
    )
