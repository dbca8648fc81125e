"""Trains an embedding model as sentence-transformers' examples do; the callback is the one addition."""

import sys

from datasets import load_dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerModelCardData,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from hub_callbacks import HubSyncCallback


def main(backbone, data_file, output_dir):
    card = SentenceTransformerModelCardData(language="en", license="apache-2.0", model_name="Tiny embeddings")
    model = SentenceTransformer(backbone, device="cpu", model_card_data=card)
    pairs = load_dataset("json", data_files=data_file, split="train")
    evaluator = EmbeddingSimilarityEvaluator(
        pairs["anchor"], pairs["positive"], [0.1 * i for i in range(len(pairs))]
    )
    args = SentenceTransformerTrainingArguments(
        output_dir=output_dir,
        max_steps=4,
        per_device_train_batch_size=2,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=1,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=args,
        train_dataset=pairs,
        eval_dataset=pairs,
        loss=MultipleNegativesRankingLoss(model),
        evaluator=evaluator,
        callbacks=[HubSyncCallback()],
    )
    trainer.train()
    evaluator(model)
    model.save_pretrained(f"{output_dir}/final")
    trainer.push_to_hub()


if __name__ == "__main__":
    main(*sys.argv[1:])
