"""Trains a small causal language model, with a tokenizer made on the spot, and pushes every save to a Hub.

The text is what scikit-learn says about its own data sets; the Hub is the embedded one, in
`runs/text_generation/hub`. At the end the model is loaded back from the Hub and writes a few words.

    .venv/bin/python examples/text_generation.py
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hub_callbacks import LocalHub

HERE = Path("runs/text_generation")
shutil.rmtree(HERE, ignore_errors=True)
hub = LocalHub(HERE / "hub").start()
# huggingface_hub reads these when it is imported.
os.environ["HF_ENDPOINT"] = hub.endpoint
os.environ["HF_TOKEN"] = hub.token

from sklearn import datasets  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from transformers import (  # noqa: E402
    DataCollatorForLanguageModeling,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    pipeline,
    set_seed,
)

from hub_callbacks import HubSyncCallback  # noqa: E402

REPO = "local/dataset-describer"
BLOCK = 64  # tokens in one example


def main() -> None:
    set_seed(0)
    loaders = ("iris", "wine", "breast_cancer", "digits", "diabetes", "linnerud")
    text = " ".join(word for name in loaders for word in getattr(datasets, f"load_{name}")().DESCR.split())
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator([text], trainers.BpeTrainer(vocab_size=600, special_tokens=["<|end|>"]))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|end|>", bos_token="<|end|>", pad_token="<|end|>"
    )
    ids = tokenizer(text)["input_ids"]
    blocks = [{"input_ids": ids[i : i + BLOCK]} for i in range(0, len(ids) - BLOCK, BLOCK)]
    held_out = blocks[::10]
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=2 * BLOCK,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    callback = HubSyncCallback(hub_model_id=REPO, hub_strategy="every_save")
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=str(HERE / "dataset-describer"),
            num_train_epochs=20,
            per_device_train_batch_size=8,
            learning_rate=2e-3,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            logging_steps=10,
            report_to=[],
            use_cpu=True,
        ),
        train_dataset=[block for i, block in enumerate(blocks) if i % 10],
        eval_dataset=held_out,
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        callbacks=[callback],
    )
    trainer.train()

    writer = pipeline("text-generation", model=REPO)
    written = writer("The data set", max_new_tokens=30, do_sample=False)[0]["generated_text"]
    print(f"\nThe model on the Hub writes: {written!r}")
    print(callback.summary())
    print(f"\nThis Hub ends with the script. Start it again with: hub-callbacks serve --root {hub.root}")
    callback.close()
    hub.stop()


if __name__ == "__main__":
    main()
