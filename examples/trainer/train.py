"""LoRA with transformers and peft: base model and rows in, a merged model and its adapter out. Runs on one GPU, or slowly on
none.

Prompt and completion are one text to the model, which learns the completion alone. A run that was stopped goes on from its
last checkpoint.
"""
import shutil

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

import contract

# Names of transformers' TrainingArguments and of peft's LoraConfig.
TRAINING = {
    "learning_rate": 2e-4, "num_train_epochs": 1.0, "max_steps": -1, "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1, "warmup_steps": 0, "weight_decay": 0.0, "logging_steps": 10, "save_steps": 200, "seed": 42,
}
LORA = {"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": "all-linear"}
TEXT = {"max_length": 1024}
CHECKPOINTS = contract.ARTIFACTS / "checkpoints"


def encode(tokenizer, max_length):
    """Every row as tokens; those of the prompt do not count for the loss."""
    encoded = []
    for prompt, completion in contract.rows():
        head = tokenizer(prompt)["input_ids"]
        tokens = tokenizer(prompt + completion)["input_ids"] + [tokenizer.eos_token_id]
        labels = [-100] * len(head) + tokens[len(head):]
        encoded.append({
            "input_ids": tokens[:max_length], "attention_mask": [1] * len(tokens[:max_length]), "labels": labels[:max_length],
        })
    if all(label == -100 for row in encoded for label in row["labels"]):
        contract.fail(f"no completion begins within spec.params.max_length ({max_length}) tokens")
    return encoded


def load():
    """The base model, in half precision where the GPU has it."""
    if not (contract.MODEL / "config.json").exists():
        contract.fail("/content/model has no config.json: train from a model in the format of transformers (safetensors)")
    half = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    tokenizer = AutoTokenizer.from_pretrained(contract.MODEL)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(contract.MODEL, dtype=torch.bfloat16 if half else torch.float32)
    return tokenizer, model, half


def main():
    params = contract.params(TRAINING | LORA | TEXT)
    tokenizer, model, half = load()
    rows = encode(tokenizer, params["max_length"])
    targets = params["target_modules"]
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=params["lora_r"], lora_alpha=params["lora_alpha"], lora_dropout=params["lora_dropout"],
        target_modules=targets if targets == "all-linear" else targets.split(","),
    )
    torch.manual_seed(params["seed"])
    model = get_peft_model(model, lora)
    arguments = TrainingArguments(
        output_dir=str(CHECKPOINTS), save_total_limit=1, report_to="none", disable_tqdm=True, bf16=half,
        **{name: params[name] for name in TRAINING},
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=rows, data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
    )
    last = get_last_checkpoint(str(CHECKPOINTS)) if CHECKPOINTS.is_dir() else None
    print(f"{len(rows)} rows, {model.num_parameters(only_trainable=True)} parameters to train, from {last or 'the start'}", flush=True)
    trainer.train(resume_from_checkpoint=last)

    model.save_pretrained(contract.ARTIFACTS / "lora")
    model.merge_and_unload().save_pretrained(contract.ARTIFACTS)
    tokenizer.save_pretrained(contract.ARTIFACTS)
    shutil.rmtree(CHECKPOINTS, ignore_errors=True)


if __name__ == "__main__":
    main()
