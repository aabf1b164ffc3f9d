"""Classifies texts with a pre-trained sentence encoder as the teacher, and a bag of words as the student.

The teacher is the encoder, with published weights that stay as they are, and one dense layer; a few labelled texts per
class train it. The student has less than a thousandth of its weights and learns on unlabelled texts what the teacher
says about them.

For your own texts, set their columns and the number of classes:

  preprocessing: {text: [title, body], length: 64}
  teachers: [{hyperparameters: {length: 64, classes: 5}}]
  student: {hyperparameters: {length: 64, classes: 5}}

`encoder`, in `preprocessing` and in the teacher's hyperparameters, names another installed package, or a folder in the
layout of sentence-transformers, with an uncased English BERT encoder.
"""

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras

from stillhouse.modules.errors import UserError
from stillhouse.modules.tasks.columns import dense
from stillhouse.modules.text.hashed_bag import BagOfIds, Buckets
from stillhouse.modules.text.sentence_encoder import PACKAGE, VOCABULARY, encoder_folder, sentence_encoder
from stillhouse.modules.text.uncased import token_ids

TOKENS = "tokens"


def preprocessing_fn(inputs, custom_config):
    """Converts columns of text to the encoder's token ids.

    Args:
      inputs: raw columns.
      custom_config: `label`, name of the label column; `preprocessing`: {text: names of the columns, joined;
        length: ids per example; encoder: package or folder of the encoder}.

    Raises:
      UserError: a column or the encoder is missing.
    """
    settings, label = custom_config["preprocessing"], custom_config["label"]
    missing = [name for name in settings["text"] if name not in inputs]
    if missing:
        raise UserError(f"preprocessing.text: found {', '.join(missing)}; expected columns of: {', '.join(inputs)}")
    texts = tf.strings.join([dense(inputs[name], "") for name in settings["text"]], separator=" ")
    vocabulary = encoder_folder(settings.get("encoder", PACKAGE)) / VOCABULARY
    classes = dense(inputs[label], -1 if inputs[label].dtype == tf.int64 else "")
    if classes.dtype == tf.string:
        classes = tft.compute_and_apply_vocabulary(classes, vocab_filename=label)
    return {TOKENS: token_ids(texts, vocabulary, settings["length"]), label: classes}


def build_teacher(length: int, classes: int, encoder: str = PACKAGE, trainable: bool = False) -> keras.Model:
    """Returns the encoder and the classes over its embedding.

    Args:
      length: ids per example.
      classes: number of classes.
      encoder: package or folder of the encoder.
      trainable: whether training changes the encoder too; needs more labels, memory and time.

    Raises:
      UserError: the encoder, or the package that reads its weights, is missing.
    """
    network = sentence_encoder(encoder_folder(encoder), length, trainable)
    tokens = keras.Input([length], dtype="int64", name=TOKENS)
    embedding = network(tokens)
    # An embedding has norm 1. Its numbers get variance 1, for which initial weights and learning rates are made.
    scaled = keras.layers.Rescaling(embedding.shape[-1] ** 0.5, name="scaled")(embedding)
    # From zero: in directions about which a few labelled texts say nothing, random initial weights would stay as noise.
    return keras.Model(tokens, keras.layers.Dense(classes, kernel_initializer="zeros", name="classes")(scaled))


def build_student(length: int, classes: int, buckets: int = 1024, width: int = 16, dropout: float = 0.5) -> keras.Model:
    """Returns a network over the bag of a text's tokens: a table of the hashed tokens, and the classes.

    Args:
      length: ids per example.
      classes: number of classes.
      buckets: number of rows of the table, which the tokens share.
      width: width of the hidden layer.
      dropout: fraction of a text's tokens that training leaves out at random.
    """
    tokens = keras.Input([length], dtype="int64", name=TOKENS)
    hashed = Buckets(buckets, name="buckets")(tokens)
    hidden = keras.layers.ReLU()(BagOfIds(buckets, width, dropout, name="bag")(hashed))
    return keras.Model(tokens, keras.layers.Dense(classes, name="classes")(hidden))
