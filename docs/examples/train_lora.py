"""A LoRA adapter from the shards of a dataset, on one process or several, continued after a kill.

    python train_lora.py s3://bucket/laws/laws-2026 --folder run
    torchrun --nproc-per-node 2 train_lora.py s3://bucket/laws/laws-2026 --folder run

The model is a tiny one with random weights, and each byte of a text is a token, so that nothing is fetched
and it runs on a CPU in a minute. Take your own model and tokenizer in `make_model` and `tokens`.
"""

import argparse
import json
import os
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import distributed
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

import shardline

END, LENGTH = 256, 192


def make_model() -> torch.nn.Module:
    """A model with random weights. The adapter trains beside its embeddings, which know nothing yet."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=END + 1,
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
    )
    adapter = LoraConfig(
        r=16, lora_alpha=32, target_modules="all-linear", modules_to_save=["embed_tokens", "lm_head"]
    )
    return get_peft_model(LlamaForCausalLM(config), adapter)


def tokens(text: str) -> list[int]:
    """The bytes of a text, and the end."""
    return [*text.encode()[: LENGTH - 1], END]


def collate(rows: list[dict]) -> dict:
    """A batch: tokens, filled up with the end, which the loss ignores."""
    texts = [tokens(row["text"]) for row in rows]
    longest = max(map(len, texts))
    ids = torch.tensor([text + [END] * (longest - len(text)) for text in texts])
    real = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
    return {
        "ids": [row["document_id"] for row in rows],
        "input_ids": ids,
        "attention_mask": real,
        "labels": ids.masked_fill(real == 0, -100),
    }


def save(path: Path, state: dict) -> None:
    """Write a checkpoint completely or not at all: a kill in the middle leaves the one before."""
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def share_gradients(parameters: list[torch.nn.Parameter], world_size: int) -> None:
    """Take the mean of the gradients of all processes, in one message."""
    gradients = [one.grad for one in parameters]
    flat = torch.cat([one.flatten() for one in gradients])
    distributed.all_reduce(flat)
    flat /= world_size
    for gradient, part in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def main() -> None:
    """Train for some epochs. Every step is in `log-RANK.jsonl`: its loss, and the ids of its rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("--folder", type=Path, default=Path("run"))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--checkpoint-steps", type=int, default=5)
    options = parser.parse_args()

    # 1. One process, or one of several.
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1:
        distributed.init_process_group("gloo")
    options.folder.mkdir(parents=True, exist_ok=True)
    checkpoint, log = options.folder / f"checkpoint-{rank}.pt", options.folder / f"log-{rank}.jsonl"

    # 2. The rows of this rank, and where an earlier run has stopped.
    rows = shardline.load(options.dataset, split="train", rank=rank, world_size=world_size).torch()
    model = make_model()
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer, step = torch.optim.AdamW(trained, lr=3e-3), 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
        rows.load_state_dict(json.loads(state["rows"]))
        step = state["step"]
    # What was logged behind the checkpoint is trained again.
    lines = log.read_text().splitlines()[:step] if log.exists() else []
    log.write_text("".join(line + "\n" for line in lines))

    # 3. The epochs. `state_dict` of the rows belongs into the checkpoint of the model.
    with log.open("a") as written:
        while rows.epoch < options.epochs:
            epoch = rows.epoch
            for batch in DataLoader(rows, batch_size=options.batch, collate_fn=collate):
                ids = batch.pop("ids")
                loss = model(**batch).loss
                loss.backward()
                if world_size > 1:
                    share_gradients(trained, world_size)
                optimizer.step()
                optimizer.zero_grad()
                step += 1
                written.write(json.dumps({"epoch": epoch, "loss": loss.item(), "ids": ids}) + "\n")
                written.flush()
                if step % options.checkpoint_steps == 0:
                    weights = {name: one for name, one in model.named_parameters() if one.requires_grad}
                    position = json.dumps(rows.state_dict())
                    state = {
                        "model": weights,
                        "optimizer": optimizer.state_dict(),
                        "rows": position,
                        "step": step,
                    }
                    save(checkpoint, state)
    model.save_pretrained(options.folder / "adapter")
    if world_size > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
