"""A sentence encoder of random weights in the files in which real ones are published."""

import json

import numpy as np

VOCABULARY, LAYERS, WIDTH, HEADS, POSITIONS = 23, 2, 12, 3, 20
CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": VOCABULARY,
    "num_hidden_layers": LAYERS,
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
    "intermediate_size": 4 * WIDTH,
    "layer_norm_eps": 1e-12,
}
TOKENS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "sum", "##s", "of", "cafe", "##teria", "nai", "##ve"),
    *("-", "_", "(", ")", ".", "中", "£5", "u", "×", "3", "x"),
]


def shapes():
    """The tensors of BERT's encoder, with PyTorch's shapes."""
    inner = 4 * WIDTH
    found = {
        "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        "embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
        "pooler.dense.weight": (WIDTH, WIDTH),
        "pooler.dense.bias": (WIDTH,),
    }
    for number in range(LAYERS):
        dense = {
            "attention.self.query": (WIDTH, WIDTH),
            "attention.self.key": (WIDTH, WIDTH),
            "attention.self.value": (WIDTH, WIDTH),
            "attention.output.dense": (WIDTH, WIDTH),
            "intermediate.dense": (inner, WIDTH),
            "output.dense": (WIDTH, inner),
        }
        for name, shape in dense.items():
            found |= {
                f"encoder.layer.{number}.{name}.weight": shape,
                f"encoder.layer.{number}.{name}.bias": shape[:1],
            }
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            found |= {f"encoder.layer.{number}.{name}.{part}": (WIDTH,) for part in ("weight", "bias")}
    return found


def write_safetensors(path, tensors, kind="F32"):
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, values in tensors.items():
        raw = values.tobytes()
        own = "I64" if values.dtype == np.int64 else kind
        header[name] = {
            "dtype": own,
            "shape": list(values.shape),
            "data_offsets": [len(body), len(body) + len(raw)],
        }
        body += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def random_tensors():
    """Every tensor of the encoder, and one of integers, which published files have too."""
    chance = np.random.RandomState(0)
    values = {name: chance.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes().items()}
    return values | {"embeddings.position_ids": np.arange(POSITIONS)[None]}


def write_encoder(folder, tensors=None):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in TOKENS), encoding="utf-8")
    write_safetensors(folder / "model.safetensors", tensors or random_tensors())
    return folder
