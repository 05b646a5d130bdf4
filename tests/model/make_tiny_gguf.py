"""Writes a tiny random llama twice: OUT/tiny.gguf for llama.cpp, and OUT/hf, a Hugging Face repository.

    python make_tiny_gguf.py OUT        # needs PyPI gguf and numpy

The same bytes on every run. The weights are random, so what it says means nothing: assert status, counts and that there is
text, never the text. The output head is zero for every token that is not a whole word: what comes out is printable, and no
answer ends early.
"""
import json
import pathlib
import struct
import sys

import gguf
import numpy

DIM, LAYERS, HEADS, KV_HEADS, FEED_FORWARD, CONTEXT = 64, 2, 4, 2, 128, 2048
HEAD_DIM = DIM // HEADS
EPSILON, ROPE_BASE = 1e-5, 10000.0
WORDS = (
    "the a model cluster node pod runs serves loads scales engine token cache batch request route replica image small fast "
    "slow warm cold ready one two three four and with from into over under hello world"
).split()
END_OF_TEXT, START, END = SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def vocabulary():
    """Byte-level BPE: GPT-2's alphabet of bytes, then every prefix of each word as a merge."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letter = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    tokens, merges, whole = [letter[byte] for byte in range(256)], [], set()
    for word in WORDS:
        word = letter[ord(" ")] + word
        for end in range(1, len(word)):
            if word[: end + 1] not in tokens:
                merges.append(f"{word[:end]} {word[end]}")
                tokens.append(word[: end + 1])
        whole.add(tokens.index(word))
    return tokens + SPECIAL, merges, whole


def weights(tokens, whole):
    """Tensors under Hugging Face's names, in its layout."""
    random = numpy.random.default_rng(7)

    def normal(*shape, deviation=None):
        return random.normal(0, deviation or shape[-1] ** -0.5, shape).astype(numpy.float32)

    head = normal(len(tokens), DIM, deviation=0.5)
    head[[i for i in range(len(tokens)) if i not in whole]] = 0
    tensors = {
        "model.embed_tokens.weight": normal(len(tokens), DIM, deviation=1.0),
        "model.norm.weight": numpy.ones(DIM, numpy.float32),
        "lm_head.weight": head,
    }
    shapes = {
        "self_attn.q_proj": (DIM, DIM),
        "self_attn.k_proj": (KV_HEADS * HEAD_DIM, DIM),
        "self_attn.v_proj": (KV_HEADS * HEAD_DIM, DIM),
        "self_attn.o_proj": (DIM, DIM),
        "mlp.gate_proj": (FEED_FORWARD, DIM),
        "mlp.up_proj": (FEED_FORWARD, DIM),
        "mlp.down_proj": (DIM, FEED_FORWARD),
    }
    for layer in range(LAYERS):
        for name, shape in shapes.items():
            tensors[f"model.layers.{layer}.{name}.weight"] = normal(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{name}.weight"] = numpy.ones(DIM, numpy.float32)
    return tensors


def write_gguf(path, tokens, merges, tensors):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny-random-llama")
    writer.add_license("apache-2.0")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(DIM)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    kinds = gguf.TokenType
    writer.add_token_types([int(kinds.CONTROL if token in SPECIAL else kinds.NORMAL) for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index(END_OF_TEXT))
    writer.add_eos_token_id(tokens.index(END))
    writer.add_eot_token_id(tokens.index(END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    for name, tensor in tensors.items():
        heads = HEADS if "q_proj" in name else KV_HEADS if "k_proj" in name else 0
        if heads:
            # llama.cpp rotates neighbouring pairs, Hugging Face the two halves: rows move as llama.cpp's converter moves them.
            tensor = tensor.reshape(heads, 2, HEAD_DIM // 2, DIM).swapaxes(1, 2).reshape(tensor.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), numpy.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(tensor.tobytes() for tensor in tensors.values()))


def write_repository(folder, tokens, merges, tensors):
    def write(name, document):
        (folder / name).write_text(json.dumps(document, indent=1) + "\n")

    bos, eos = tokens.index(END_OF_TEXT), tokens.index(END)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": DIM, "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM,
        "hidden_act": "silu", "vocab_size": len(tokens), "max_position_embeddings": CONTEXT, "rms_norm_eps": EPSILON,
        "rope_theta": ROPE_BASE, "tie_word_embeddings": False, "bos_token_id": bos, "eos_token_id": eos,
        "attention_bias": False, "mlp_bias": False, "torch_dtype": "float32",
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": byte_level,
        "post_processor": None, "decoder": byte_level,
        "added_tokens": [{"id": tokens.index(token), "content": token, **plain} for token in SPECIAL],
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "vocab": {token: i for i, token in enumerate(tokens)}, "merges": merges,
        },
    }
    write("config.json", config)
    write("generation_config.json", {"bos_token_id": bos, "eos_token_id": eos})
    write("tokenizer.json", tokenizer)
    write("tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END_OF_TEXT, "eos_token": END,
        "model_max_length": CONTEXT, "chat_template": TEMPLATE, "clean_up_tokenization_spaces": False,
    })
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "README.md").write_text(
        "---\nlicense: apache-2.0\npipeline_tag: text-generation\ntags:\n- tiny\n---\n# Tiny random llama\n\nFor tests: the weights are random.\n"
    )


def main(out):
    repository = out / "hf"
    repository.mkdir(parents=True)
    tokens, merges, whole = vocabulary()
    tensors = weights(tokens, whole)
    write_gguf(out / "tiny.gguf", tokens, merges, tensors)
    write_repository(repository, tokens, merges, tensors)
    print(f"{out}: {len(tokens)} tokens, {sum(tensor.size for tensor in tensors.values())} parameters")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
