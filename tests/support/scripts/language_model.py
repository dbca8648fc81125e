"""Trains a language model on a text file, as transformers' example does; the callback is the one addition."""

import math
from dataclasses import dataclass, field

from datasets import load_dataset
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from hub_callbacks import HubSyncCallback


@dataclass
class Arguments:
    config_name: str = field()
    train_file: str = field()
    block_size: int = field(default=8)


def main():
    own_args, training_args = HfArgumentParser((Arguments, TrainingArguments)).parse_args_into_dataclasses()
    texts = load_dataset("text", data_files={"train": own_args.train_file, "validation": own_args.train_file})
    tokenizer = AutoTokenizer.from_pretrained(own_args.config_name)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(own_args.config_name))

    def group(rows):
        ids = [number for row in tokenizer(rows["text"])["input_ids"] for number in row]
        ends = range(own_args.block_size, len(ids) + 1, own_args.block_size)
        blocks = [ids[end - own_args.block_size : end] for end in ends]
        return {"input_ids": blocks, "labels": [list(block) for block in blocks]}

    blocks = texts.map(group, batched=True, remove_columns=["text"])
    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=blocks["train"],
        eval_dataset=blocks["validation"],
        processing_class=tokenizer,
        data_collator=default_data_collator,
        callbacks=[HubSyncCallback()],
    )
    train_result = trainer.train()
    trainer.save_model()
    trainer.save_metrics("train", train_result.metrics)
    trainer.save_state()
    metrics = trainer.evaluate()
    metrics["perplexity"] = math.exp(metrics["eval_loss"])
    trainer.save_metrics("eval", metrics)

    kwargs = {"finetuned_from": None, "tasks": "text-generation"}
    if training_args.push_to_hub:
        trainer.push_to_hub(**kwargs)
    else:
        trainer.create_model_card(**kwargs)


if __name__ == "__main__":
    main()
