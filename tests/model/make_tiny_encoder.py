"""Writes a tiny random BERT as one GGUF file, for llama.cpp: an encoder, which makes vectors and no text.

    python make_tiny_encoder.py FILE        # needs PyPI gguf and numpy

The same bytes on every run. The weights are random, so its vectors mean nothing: assert their length, and that the same text
has the same vector and another text another one.
"""
import sys

import gguf
import numpy

DIM, LAYERS, HEADS, FEED_FORWARD, CONTEXT = 32, 2, 2, 64, 128
EPSILON = 1e-12
SPECIAL = PAD, UNKNOWN, START, END, MASK = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "the a model cluster node pod runs serves loads engine token hello world".split()


def vocabulary():
    """WordPiece as llama.cpp has it: what begins a word is marked, what goes on with one is not."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,?!-'"
    begins = ["\u2581" + text for text in dict.fromkeys([*WORDS, *letters])]
    return SPECIAL + begins + list(letters)


def tensors(tokens):
    """Under llama.cpp's names, in its layout."""
    random = numpy.random.default_rng(11)

    def normal(*shape):
        return random.normal(0, shape[-1] ** -0.5, shape).astype(numpy.float32)

    def norm(name):
        return {f"{name}.weight": numpy.ones(DIM, numpy.float32), f"{name}.bias": numpy.zeros(DIM, numpy.float32)}

    found = {
        "token_embd.weight": normal(tokens, DIM),
        "token_types.weight": normal(2, DIM),
        "position_embd.weight": normal(CONTEXT, DIM),
        **norm("token_embd_norm"),
    }
    shapes = {
        "attn_q": (DIM, DIM), "attn_k": (DIM, DIM), "attn_v": (DIM, DIM), "attn_output": (DIM, DIM),
        "ffn_up": (FEED_FORWARD, DIM), "ffn_down": (DIM, FEED_FORWARD),
    }
    for layer in range(LAYERS):
        for name, shape in shapes.items():
            found[f"blk.{layer}.{name}.weight"] = normal(*shape)
            found[f"blk.{layer}.{name}.bias"] = numpy.zeros(shape[0], numpy.float32)
        found |= norm(f"blk.{layer}.attn_output_norm") | norm(f"blk.{layer}.layer_output_norm")
    return found


def main(path):
    tokens = vocabulary()
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("tiny-random-bert")
    writer.add_license("apache-2.0")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(DIM)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    kinds = gguf.TokenType
    writer.add_token_types([int(kinds.CONTROL if token in SPECIAL else kinds.NORMAL) for token in tokens])
    writer.add_token_type_count(2)
    writer.add_bos_token_id(tokens.index(START))
    writer.add_eos_token_id(tokens.index(END))
    writer.add_unk_token_id(tokens.index(UNKNOWN))
    writer.add_sep_token_id(tokens.index(END))
    writer.add_pad_token_id(tokens.index(PAD))
    writer.add_mask_token_id(tokens.index(MASK))
    for name, tensor in tensors(len(tokens)).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(sys.argv[1])
