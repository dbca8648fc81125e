"""What a card says of the weights beside it is what they score when they are loaded back from the Hub."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from huggingface_hub import hf_hub_download
from transformers import BertForSequenceClassification, Trainer, TrainerCallback, get_cosine_schedule_with_warmup

from hub_callbacks import HubSync, HubSyncCallback
from hub_callbacks.card.formatting import measure
from models import Sentences, accuracy, arguments, classifier

TEST, VALIDATION, TRAINING = Sentences(12), Sentences(8), Sentences(16)


class At(TrainerCallback):
    """Does something when a step ends."""

    def __init__(self, step: int, action: Callable[[], Any]) -> None:
        self.step, self.action = step, action

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.action()


class Judge:
    """A `compute_metrics` that finds the weights of one step the best; its number is of no other use."""

    def __init__(self, *best: int, every: int) -> None:
        self.best, self.every, self.step = best, every, 0

    def __call__(self, prediction: Any) -> dict[str, float]:
        self.step += self.every
        return accuracy(prediction) | {"goal": 0.5 + self.best.index(self.step) if self.step in self.best else 0.0}


def trainer_of(
    tmp_path: Any, repo: str, judge: Any, *callbacks: TrainerCallback, **changes: Any
) -> tuple[Trainer, HubSyncCallback]:
    callback = HubSyncCallback()
    values = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "learning_rate": 1e-2,  # each step has another loss
        "load_best_model_at_end": True,
        "metric_for_best_model": "goal",
        "greater_is_better": True,
    }
    trainer = Trainer(
        classifier(),
        arguments(tmp_path / repo, **(values | changes)),
        train_dataset=TRAINING,
        eval_dataset=VALIDATION,
        compute_metrics=judge,
        callbacks=[*callbacks, callback],
    )
    return trainer, callback


def card_of(repo: str, revision: str | None = None) -> str:
    with open(hf_hub_download(f"local/{repo}", "README.md", revision=revision), encoding="utf-8") as file:
        return file.read()


def headline(card: str) -> dict[str, dict[str, str]]:
    """Data set → metric → value, of the table at the top; the only data set has the empty name."""
    intro = card.split("hub_callbacks:begin intro")[1].split("hub_callbacks:end intro")[0]
    lines = [line for line in intro.splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines] or [[], []]
    if header and not header[0]:
        return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}
    return {"": dict(zip(header, rows[0], strict=True))} if rows else {}


def loss_of(repo: str, data: Sentences, tmp_path: Any) -> str:
    """The loss of what is on the Hub, worded as on a card."""
    model = BertForSequenceClassification.from_pretrained(f"local/{repo}")
    judge = Trainer(model, arguments(tmp_path / "judge"), eval_dataset=data)
    return measure("loss", judge.evaluate()["eval_loss"])


def test_the_best_step_was_not_saved(hub, repo, tmp_path):
    """`best_global_step` is 3; what is loaded is the checkpoint of step 2."""
    trainer, callback = trainer_of(tmp_path, repo, Judge(2, 3, every=1), eval_steps=1, save_steps=2)
    trainer.train()
    callback.close()
    assert trainer.state.best_global_step == 3 and trainer.state.best_model_checkpoint.endswith("checkpoint-2")
    assert headline(card_of(repo))[""]["Loss"] == loss_of(repo, VALIDATION, tmp_path)
    assert "Measured after step 2" in card_of(repo) and "that step, the best by" not in card_of(repo)


def test_no_best_step_was_saved(hub, repo, tmp_path):
    trainer, callback = trainer_of(tmp_path, repo, Judge(3, every=1), eval_steps=1, save_steps=2)
    trainer.train()
    callback.close()
    assert trainer.state.best_model_checkpoint is None
    assert headline(card_of(repo))[""]["Loss"] == loss_of(repo, VALIDATION, tmp_path)
    assert "Measured after step 8" in card_of(repo)


def test_the_best_checkpoint_is_not_on_this_machine(hub, repo, tmp_path):
    """As after a training that went on elsewhere: the Trainer looks for it, and goes on with the last weights."""
    gone = At(7, lambda: shutil.rmtree(tmp_path / repo / "checkpoint-4"))
    trainer, callback = trainer_of(tmp_path, repo, Judge(4, every=2), gone)
    trainer.train()
    trainer.push_to_hub()
    callback.close()
    assert trainer.state.best_global_step == 4
    assert headline(card_of(repo))[""]["Loss"] == loss_of(repo, VALIDATION, tmp_path)
    assert "Measured after step 8" in card_of(repo)


class OfAnotherMachine(TrainerCallback):
    """Has the state name the best checkpoint as it was called where the training began."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == state.max_steps:
            state.best_model_checkpoint = "/another/machine/checkpoint-4"


def test_a_folder_of_that_name_here_is_not_the_one_that_was_loaded(hub, repo, tmp_path):
    trainer, callback = trainer_of(tmp_path, repo, Judge(4, every=2), OfAnotherMachine())
    trainer.train()
    callback.close()
    assert (tmp_path / repo / "checkpoint-4").is_dir()
    assert headline(card_of(repo))[""]["Loss"] == loss_of(repo, VALIDATION, tmp_path)
    assert "Measured after step 8" in card_of(repo)


@pytest.mark.parametrize("at", [5, 6])
def test_pushed_after_ctrl_c(hub, repo, tmp_path, at):
    def interrupt() -> None:
        raise KeyboardInterrupt

    trainer, callback = trainer_of(tmp_path, repo, Judge(2, every=2), At(at, interrupt))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.push_to_hub()
    callback.close()
    last = at - 1 - (at - 1) % 2
    card = card_of(repo)
    assert f"Measured after step {last}" in card
    assert f"the weights here are those of step {at}, which was not evaluated" in card


def test_pushed_from_a_callback_while_it_trains(hub, api, repo, tmp_path):
    push = At(5, lambda: trainer.push_to_hub("By hand", blocking=False))
    trainer, callback = trainer_of(tmp_path, repo, Judge(2, every=2), push, hub_always_push=True)
    trainer.train()
    callback.close()
    commits = {commit.title: commit.commit_id for commit in api.list_repo_commits(f"local/{repo}")}
    assert "Measured after step 2" in card_of(repo, commits["End of training"])
    assert "the weights here are those of step 5, which was not evaluated" in card_of(repo, commits["By hand"])


@pytest.mark.parametrize("loads_best", [True, False])
def test_evaluated_after_the_training(hub, repo, tmp_path, loads_best):
    """Those numbers are the loaded weights', and stand in no row of a step."""
    judge = Judge(4, every=2)
    trainer, callback = trainer_of(tmp_path, repo, judge, load_best_model_at_end=loads_best)
    trainer.train()
    trainer.evaluate()
    trainer.evaluate(TEST, metric_key_prefix="test")
    trainer.push_to_hub()
    callback.close()
    card = card_of(repo)
    shown = headline(card)
    assert shown["test"]["Loss"] == loss_of(repo, TEST, tmp_path)
    assert loss_of(repo, VALIDATION, tmp_path) in [
        values["Loss"] for name, values in shown.items() if name != "test"
    ]
    assert "Measured after training" in card
    by_step = {row["step"]: row for row in trainer.state.log_history if "eval_loss" in row and row["step"] < 8}
    rows = re.findall(r"^\| \**(\d+)\** \|.*$", card, re.MULTILINE)
    assert rows == ["2", "4", "6", "8"] and set(by_step) == {2, 4, 6}
    table = card.split("hub_callbacks:begin results")[1].split("hub_callbacks:end results")[0]
    assert "test" not in table
    at_8 = next(row for row in trainer.state.log_history if row["step"] == 8 and "eval_loss" in row)
    assert measure("loss", at_8["eval_loss"]) in table.split("| 8 |")[-1].split("\n")[0]


def test_an_evaluation_on_the_training_data_ends_no_run(hub, repo, tmp_path):
    trainer, callback = trainer_of(tmp_path, repo, Judge(4, every=2))
    trainer.train()
    runtime = next(row["train_runtime"] for row in trainer.state.log_history if "total_flos" in row)
    measured = trainer.evaluate(TRAINING, metric_key_prefix="train")
    trainer.push_to_hub()
    callback.close()
    facts = callback.run.facts.at(trainer.state)["progress"]
    assert facts["totals"]["train_runtime"] == runtime != measured["train_runtime"]
    card = card_of(repo)
    assert (
        "train" not in headline(card)
        and measure("loss", measured["train_loss"]) not in card.split("Hyperparam")[0]
    )
    assert headline(card)[""]["Loss"] == loss_of(repo, VALIDATION, tmp_path)


def test_an_evaluation_on_the_training_data_before_the_end_ends_no_run(hub, repo, tmp_path):
    trainer, callback = trainer_of(
        tmp_path, repo, Judge(4, every=2), At(5, lambda: trainer.evaluate(TRAINING, metric_key_prefix="train"))
    )
    interrupted = At(6, lambda: 1 / 0)
    trainer.add_callback(interrupted)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    trainer.push_to_hub()
    callback.close()
    assert "Training was stopped: step 6 of 8" in card_of(repo)


def test_the_number_of_examples_is_that_of_each_set(hub, repo, tmp_path):
    trainer, callback = trainer_of(
        tmp_path, repo, accuracy, load_best_model_at_end=False, metric_for_best_model=None, greater_is_better=None
    )
    trainer.train()
    trainer.evaluate(TRAINING, metric_key_prefix="train")
    trainer.evaluate(TEST, metric_key_prefix="test")
    trainer.evaluate({"small": Sentences(3), "large": Sentences(20)})
    trainer.push_to_hub()
    callback.close()
    card = card_of(repo)
    for line in (
        "Evaluation data:** 8 examples",
        "Evaluation data (test):** 12 examples",
        "Evaluation data (small):** 3 examples",
        "Evaluation data (large):** 20 examples",
    ):
        assert line in card
    assert "(train)" not in card


def test_a_loop_pushes_a_folder_that_says_no_step(hub, repo, tmp_path):
    sync = HubSync(output_dir=tmp_path / repo, hub_model_id=repo, hub_strategy="every_save")
    sync.init_hf_repo()
    sync.log({"eval_loss": 0.25}, 7)
    folder = tmp_path / repo / "other"
    classifier().save_pretrained(folder)
    sync.push_from_checkpoint(folder)
    sync.close()
    assert "0.25" not in card_of(repo).split("hub_callbacks:end intro")[0]


@pytest.mark.parametrize(("lr", "shown"), [(torch.tensor(0.125), "0.125"), (0.25, "0.125 to 0.25")])
def test_the_optimizer_that_a_trainer_was_given(hub, repo, tmp_path, lr, shown):
    model, callback = classifier(), HubSyncCallback()
    sgd = torch.optim.SGD(
        [{"params": model.bert.parameters(), "lr": lr}, {"params": model.classifier.parameters(), "lr": 0.125}],
        momentum=0.9,
    )
    trainer = Trainer(
        model,
        arguments(tmp_path / repo, max_steps=4),
        train_dataset=TRAINING,
        optimizers=(sgd, torch.optim.lr_scheduler.StepLR(sgd, 2)),
        callbacks=[callback],
    )
    trainer.train()
    callback.close()
    card = card_of(repo)
    assert "| `optimizer` | SGD (momentum=0.9) |" in card and "adamw" not in card
    assert f"| `learning_rate` | {shown} |" in card and "| `lr_scheduler_type` | StepLR |" in card


def test_the_optimizer_that_a_trainer_makes_is_called_as_in_its_arguments(hub, repo, tmp_path):
    trainer, callback = trainer_of(tmp_path, repo, accuracy, metric_for_best_model="loss", greater_is_better=False)
    trainer.train()
    callback.close()
    assert re.search(r"\| `optimizer` \| adamw\\?_torch", card_of(repo))
    assert "| `learning_rate` | 0.01 |" in card_of(repo) and "| `lr_scheduler_type` | linear |" in card_of(repo)


class Large(BertForSequenceClassification):
    def forward(self, input_ids: Any = None, attention_mask: Any = None, labels: Any = None) -> Any:
        if self.training and len(input_ids) > 2:
            raise RuntimeError("CUDA out of memory.")
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels)


def test_the_batch_size_that_was_found(hub, repo, tmp_path):
    callback = HubSyncCallback()
    trainer = Trainer(
        Large(classifier().config),
        arguments(tmp_path / repo, max_steps=4, auto_find_batch_size=True, per_device_train_batch_size=4),
        train_dataset=TRAINING,
        callbacks=[callback],
    )
    trainer.train()
    callback.close()
    assert "| `train_batch_size` | 2 |" in card_of(repo) and "**Examples seen:** about 8" in card_of(repo)


def test_a_loop_says_neither_that_it_was_resumed_nor_that_it_goes_on(hub, repo, tmp_path):
    sync = HubSync(output_dir=tmp_path / repo, hub_model_id=repo, hub_strategy="every_save")
    sync.log({"loss": 0.5}, 7)
    sync.describe(model=classifier())
    classifier().save_pretrained(tmp_path / repo)
    sync.push_to_hub()
    sync.close()
    assert "resumed" not in card_of(repo) and "in progress" not in card_of(repo)
    assert "**Length:** 7 steps" in card_of(repo)


def cosine(optimizer: Any) -> Any:
    return get_cosine_schedule_with_warmup(optimizer, 2, 8)


@pytest.mark.parametrize(
    ("make", "schedule", "shown"),
    [
        (lambda p: torch.optim.Adam(p, lr=5e-5), None, ["Adam (betas=(0.9, 0.999), eps=1e-08)"]),
        (lambda p: torch.optim.AdamW(p, lr=5e-5, betas=(0.5, 0.6)), None, ["AdamW (betas=(0.5, 0.6), eps=1e-08)"]),
        (lambda p: torch.optim.AdamW(p, lr=5e-5, weight_decay=0.25), None, ["| `weight_decay` | 0.25 |"]),
        (lambda p: torch.optim.AdamW(p, lr=5e-5), cosine, ["cosine_schedule_with_warmup"]),
        (
            lambda p: torch.optim.AdamW(p, lr=5e-5),
            lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1),
            ["LambdaLR"],
        ),
    ],
    ids=["Adam", "betas", "decay", "cosine", "lambda"],
)
def test_what_a_trainer_was_given_is_not_taken_for_what_its_arguments_say(
    hub, repo, tmp_path, make, schedule, shown
):
    model, callback = classifier(), HubSyncCallback()
    optimizer = make(model.parameters())
    trainer = Trainer(
        model,
        arguments(tmp_path / repo, max_steps=2, weight_decay=0.125, warmup_steps=1),
        train_dataset=TRAINING,
        optimizers=(optimizer, schedule and schedule(optimizer)),
        callbacks=[callback],
    )
    trainer.train()
    callback.close()
    card = card_of(repo).replace("\\_", "_")
    assert [text for text in shown if text not in card] == []
    assert "0.125" not in card and ("warmup_steps" in card) == (schedule is None)


class EndsItself(TrainerCallback):
    """Pushes on its own when training ends, before the callback under test hears of that."""

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.evaluate(TEST, metric_key_prefix="test")
        self.trainer.push_to_hub("By another callback")


def test_pushed_by_another_callback_when_training_ends(hub, api, repo, tmp_path):
    other = EndsItself()
    trainer, callback = trainer_of(tmp_path, repo, Judge(4, every=2), other, hub_always_push=True)
    other.trainer = trainer
    trainer.train()
    callback.close()
    commit = next(c.commit_id for c in api.list_repo_commits(f"local/{repo}") if c.title == "By another callback")
    at_4 = next(row for row in trainer.state.log_history if row["step"] == 4 and "eval_loss" in row)
    shown = headline(card_of(repo, commit))
    assert shown["evaluation"]["Loss"] == measure("loss", at_4["eval_loss"]) == loss_of(repo, VALIDATION, tmp_path)


def test_the_card_of_an_older_checkpoint_has_that_ones_numbers(hub, repo, tmp_path):
    trainer, callback = trainer_of(tmp_path, repo, Judge(4, every=2), hub_strategy="all_checkpoints")
    trainer.train()
    trainer.evaluate()
    trainer._push_from_checkpoint(str(tmp_path / repo / "checkpoint-2"))
    callback.close()
    assert headline(card_of(repo))[""]["Loss"] == loss_of(repo, VALIDATION, tmp_path)
    assert "Measured after step 2" in card_of(repo)


def test_a_finished_run_that_is_resumed_changes_nothing_on_the_hub(hub, api, repo, tmp_path):
    for number in (1, 2):
        trainer, callback = trainer_of(tmp_path, repo, accuracy, metric_for_best_model="accuracy", max_steps=4)
        trainer.train(resume_from_checkpoint=number > 1)
        callback.close()
        if number == 1:
            before = api.repo_info(f"local/{repo}").sha
    assert api.repo_info(f"local/{repo}").sha == before
    trainer.push_to_hub("Said later", license="mit")
    callback.close()
    assert "**Time:**" not in card_of(repo) and "resumed from step 4" in card_of(repo)
