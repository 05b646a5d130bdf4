"""LoRA on a CPU: reads a llama-like GGUF, trains with jax, writes the merged GGUF. For small models, and for trying things out.

Adapters of rank `lora_r` are trained beside the frozen weights named in `target_modules`, on the completions alone, and are
added to the weights at the end. Whoever stops it in the middle loses at most `save_steps` steps.
"""
import io
import re

import gguf
import jax
import jax.numpy as jnp
import numpy
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import contract

DEFAULTS = {
    "learning_rate": 2e-3, "max_steps": 300, "per_device_train_batch_size": 8, "save_steps": 25, "seed": 42,
    "max_length": 512, "lora_r": 8, "lora_alpha": 16,
    "target_modules": "attn_q,attn_k,attn_v,attn_output,ffn_gate,ffn_up,ffn_down,output",
}
OUTPUT, CHECKPOINT = contract.ARTIFACTS / "model.gguf", contract.ARTIFACTS / "checkpoint.npz"


class Base:
    """The base model: facts, weights and tokenizer of the one GGUF file in /content/model."""

    def __init__(self):
        files = sorted(contract.MODEL.rglob("*.gguf"))
        if len(files) != 1:
            contract.fail(f"/content/model needs one GGUF file, there are {len(files)}; ../train.py reads safetensors")
        self.reader = gguf.GGUFReader(files[0])
        if self.fact("general.architecture") != "llama":
            contract.fail(f"this trainer knows the architecture llama, not {self.fact('general.architecture')}")
        self.layers, self.heads = self.fact("llama.block_count"), self.fact("llama.attention.head_count")
        self.kv_heads = self.fact("llama.attention.head_count_kv", self.heads)
        self.epsilon = self.fact("llama.attention.layer_norm_rms_epsilon")
        self.rope_base = self.fact("llama.rope.freq_base", 10000.0)
        self.weights = {
            tensor.name: jnp.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), jnp.float32)
            for tensor in self.reader.tensors
        }

    def fact(self, key, default=None):
        field = self.reader.get_field(key)
        return default if field is None else field.contents()

    def tokenizer(self):
        tokens, merges = self.fact("tokenizer.ggml.tokens"), self.fact("tokenizer.ggml.merges")
        if self.fact("tokenizer.ggml.model") != "gpt2":
            contract.fail("this trainer knows byte-level BPE only")
        bpe = models.BPE({token: i for i, token in enumerate(tokens)}, [tuple(merge.split(" ")) for merge in merges])
        tokenizer = Tokenizer(bpe)
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        return tokenizer

    def logits(self, adapters, scale, tokens):
        """The forward pass: tokens [batch, time] to logits [batch, time, vocabulary]."""
        weights, (batch, time) = self.weights, tokens.shape

        def linear(name, x):
            y = x @ weights[name].T
            if name in adapters:
                y += scale * (x @ adapters[name]["a"].T) @ adapters[name]["b"].T
            return y

        def norm(name, x):
            return weights[name] * x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + self.epsilon)

        def rope(x):
            # GGUF keeps the pairs that rotate together side by side.
            half = x.shape[-1] // 2
            angles = jnp.arange(time)[:, None] / self.rope_base ** (jnp.arange(half) / half)
            sin, cos, even, odd = jnp.sin(angles)[:, None], jnp.cos(angles)[:, None], x[..., ::2], x[..., 1::2]
            return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)

        x = weights["token_embd.weight"][tokens]
        seen = jnp.tril(jnp.ones((time, time), bool))
        for layer in range(self.layers):
            name = f"blk.{layer}.{{}}.weight".format
            h = norm(name("attn_norm"), x)
            q = rope(linear(name("attn_q"), h).reshape(batch, time, self.heads, -1))
            k = rope(linear(name("attn_k"), h).reshape(batch, time, self.kv_heads, -1))
            v = linear(name("attn_v"), h).reshape(batch, time, self.kv_heads, -1)
            k, v = (jnp.repeat(part, self.heads // self.kv_heads, 2) for part in (k, v))
            scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
            mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.where(seen, scores, -jnp.inf)), v)
            x += linear(name("attn_output"), mixed.reshape(batch, time, -1))
            h = norm(name("ffn_norm"), x)
            x += linear(name("ffn_down"), jax.nn.silu(linear(name("ffn_gate"), h)) * linear(name("ffn_up"), h))
        head = "output.weight" if "output.weight" in weights else "token_embd.weight"
        return linear(head, norm("output_norm.weight", x))

    def write(self, path, changed):
        """The same file with some weights changed: every fact and every other tensor as it was."""
        writer = gguf.GGUFWriter(path, self.fact("general.architecture"))
        for field in self.reader.fields.values():
            if not field.name.startswith("GGUF.") and field.name != "general.architecture":
                inner = field.types[1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
        for tensor in self.reader.tensors:
            new = changed.get(tensor.name)
            if new is None:
                writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            else:
                exact = tensor.tensor_type == gguf.GGMLQuantizationType.F32
                writer.add_tensor(tensor.name, numpy.asarray(new, numpy.float32 if exact else numpy.float16))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def batches(base, params):
    """All rows as arrays: tokens, what comes next, and which of that belongs to a completion. Completions end with the token
    that ends an answer."""
    tokenizer, end = base.tokenizer(), base.fact("tokenizer.ggml.eos_token_id")
    encoded = []
    for prompt, completion in contract.rows():
        head, whole = tokenizer.encode(prompt).ids, [*tokenizer.encode(prompt + completion).ids, end]
        encoded.append((whole[: params["max_length"]], len(head)))
    width = max(len(tokens) for tokens, _ in encoded)
    tokens, counts = numpy.full((len(encoded), width), end), numpy.zeros((len(encoded), width - 1), numpy.float32)
    for row, (ids, head) in enumerate(encoded):
        tokens[row, : len(ids)] = ids
        counts[row, max(head - 1, 0) : len(ids) - 1] = 1
    return tokens[:, :-1], tokens[:, 1:], counts


def start(base, params):
    """Adapters that change nothing yet, and Adam's two averages."""
    targets = re.compile(r"(.*\.)?(" + "|".join(map(re.escape, params["target_modules"].split(","))) + r")\.weight")
    random, rank, adapters = numpy.random.default_rng(params["seed"]), params["lora_r"], {}
    for name, weight in base.weights.items():
        if targets.fullmatch(name):
            rows, columns = weight.shape
            a = random.normal(0, columns**-0.5, (rank, columns)).astype(numpy.float32)
            adapters[name] = {"a": jnp.asarray(a), "b": jnp.zeros((rows, rank), jnp.float32)}
    if not adapters:
        contract.fail(f"spec.params.target_modules: the model has no weights called {params['target_modules']}")
    zero = jax.tree.map(jnp.zeros_like, adapters)
    return adapters, zero, zero


def save(step, state):
    arrays = {str(i): numpy.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    buffer = io.BytesIO()
    numpy.savez(buffer, step=step, **arrays)
    contract.replace(CHECKPOINT, lambda path: path.write_bytes(buffer.getvalue()))


def resume(state):
    """Where an earlier try of this run was stopped; its beginning where there was none."""
    try:
        with numpy.load(CHECKPOINT) as saved:
            leaves, shape = jax.tree.flatten(state)
            return int(saved["step"]), shape.unflatten([jnp.asarray(saved[str(i)]) for i in range(len(leaves))])
    except FileNotFoundError:
        return 0, state


def main():
    params = contract.params(DEFAULTS)
    base = Base()
    tokens, targets, counts = batches(base, params)
    size, scale = min(params["per_device_train_batch_size"], len(tokens)), params["lora_alpha"] / params["lora_r"]

    def loss(adapters, tokens, targets, counts):
        likely = jax.nn.log_softmax(base.logits(adapters, scale, tokens))
        likely = jnp.take_along_axis(likely, targets[..., None], -1)[..., 0]
        return -jnp.sum(likely * counts) / jnp.maximum(jnp.sum(counts), 1)

    @jax.jit
    def update(state, step, *batch):
        adapters, first, second = state
        value, slope = jax.value_and_grad(loss)(adapters, *batch)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, slope)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, slope)
        rate = params["learning_rate"] * jnp.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        adapters = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-8), adapters, first, second)
        return (adapters, first, second), value

    done, state = resume(start(base, params))
    print(f"{len(tokens)} rows, {len(state[0])} adapted weights, from step {done} to {params['max_steps']}", flush=True)
    for step in range(done + 1, params["max_steps"] + 1):
        # The same rows at the same step on every run.
        rows = numpy.random.default_rng([params["seed"], step]).choice(len(tokens), size, replace=False)
        state, value = update(state, jnp.float32(step), tokens[rows], targets[rows], counts[rows])
        if step % params["save_steps"] == 0 or step == params["max_steps"]:
            print(f"step {step}: loss {float(value):.4f}", flush=True)
            save(step, state)
    merged = {name: base.weights[name] + scale * part["b"] @ part["a"] for name, part in state[0].items()}
    contract.replace(OUTPUT, lambda path: base.write(path, merged))
    CHECKPOINT.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
