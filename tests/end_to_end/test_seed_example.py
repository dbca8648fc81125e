"""A Trainer of one's own that calls the Hub's verbs wherever its author saw fit, and what people do with it."""

from __future__ import annotations

import os

import pytest
from huggingface_hub import ModelCard
from transformers import BertForSequenceClassification, Trainer

from hub_callbacks import HubSyncCallback, HubSyncTrainer
from models import Sentences, accuracy, arguments, classifier, tokenizer
from runs import below, digests, download, on_hub, root_of, titles


class PushesByItself:
    """When it is made, at each save and evaluation, and when training is over."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._push_in_progress = None
        self.init_hf_repo(token=self.args.hub_token)
        self.create_accelerator_and_postprocess()

    def train(self, *args, **kwargs):
        result = super().train(*args, **kwargs)
        self._finish_current_push()
        self.create_model_card(
            language="en",
            license="apache-2.0",
            tags=["example"],
            model_name="Seed example",
            finetuned_from="local/base",
            tasks="text-classification",
            dataset_tags="local/data",
            dataset="The data",
            dataset_args="plain",
            dataset_language="en",
        )
        self.push_to_hub(commit_message="Training complete", commit_description="All of it.", tags=["v1.0.0"])
        return result

    def evaluate(self, *args, **kwargs):
        metrics = super().evaluate(*args, **kwargs)
        if self._push_in_progress is None or self._push_in_progress.is_done() or self.is_in_train:
            self.push_to_hub(
                commit_message=f"Evaluation at step {self.state.global_step}",
                tags=[f"step-{self.state.global_step}"],
            )
        return metrics

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        self._push_from_checkpoint(os.path.join(self.args.output_dir, f"checkpoint-{self.state.global_step}"))


class HubIntegratedTrainer(PushesByItself, HubSyncTrainer):
    pass


class StockTrainer(PushesByItself, Trainer):
    """It has the callback, and nothing else."""


def make(output_dir, callbacks=None, kind=HubIntegratedTrainer, **changes):
    return kind(
        classifier(),
        arguments(output_dir, **({"eval_strategy": "steps", "eval_steps": 2, "max_steps": 4} | changes)),
        train_dataset=Sentences(),
        eval_dataset=Sentences(8),
        processing_class=tokenizer(),
        compute_metrics=accuracy,
        callbacks=callbacks,
    )


@pytest.mark.parametrize("push_to_hub", [True, False])
@pytest.mark.parametrize("kind", [HubIntegratedTrainer, StockTrainer])
def test_the_whole_example(hub, api, repo, tmp_path, kind, push_to_hub):
    hub.clear_requests()
    callback = HubSyncCallback()
    given = {"hub_strategy": "checkpoint", "push_to_hub": push_to_hub, "hub_token": hub.token}
    trainer = make(tmp_path / repo, [callback], kind, **given)
    trainer.train()
    callback.close()
    assert trainer.hub_model_id == f"local/{repo}" and trainer._push_in_progress is None
    # One repository, and no title twice.
    assert [m.id for m in api.list_models(author="local") if m.id.startswith(f"local/{repo}")] == [f"local/{repo}"]
    made = titles(api, repo)
    assert len(made) == len(set(made))
    if kind is StockTrainer:  # tags are of the card alone there, and what waits gives way to what is newer
        assert made[-1] == "Training complete" and api.list_repo_refs(f"local/{repo}").tags == []
        assert api.list_repo_commits(f"local/{repo}")[0].message == "All of it."
        card = ModelCard.load(download(tmp_path, repo) / "README.md")
        assert card.data.license == "apache-2.0" and "v1.0.0" in card.data.tags and "# Seed example" in card.text
        return
    # The save of a step comes after its evaluation; the newest save takes over from those that wait.
    assert [t for t in made if t.startswith("Evaluation")] == ["Evaluation at step 2", "Evaluation at step 4"]
    assert made[-1] == "Training complete"
    assert set(made) <= {
        *(f"Evaluation at step {n}" for n in (2, 4)),
        *(f"Training in progress, step {n}" for n in (2, 4)),
        "End of training",
        "Training complete",
    }
    newest = api.list_repo_commits(f"local/{repo}")[0]
    assert newest.message == "All of it."
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(f"local/{repo}").tags}
    by_title = {commit.title: commit.commit_id for commit in api.list_repo_commits(f"local/{repo}")}
    assert tags == {
        "step-2": by_title["Evaluation at step 2"],
        "step-4": by_title["Evaluation at step 4"],
        "v1.0.0": newest.commit_id,
    }
    for step in (2, 4):  # each tag has the weights of its step
        weights = digests(tmp_path / repo / f"checkpoint-{step}")["model.safetensors"]
        assert on_hub(tmp_path, repo, f"step-{step}")["model.safetensors"] == weights
    saved = digests(tmp_path / repo / "checkpoint-4")
    del saved["training_args.bin"]  # goes without the token
    assert on_hub(tmp_path, repo).items() >= (root_of(saved) | below("last-checkpoint", saved)).items()
    card = ModelCard.load(download(tmp_path, repo) / "README.md")
    assert card.data.license == "apache-2.0" and card.data.base_model == "local/base"
    assert set(card.data.tags) == {"example", "generated_from_trainer"} and "# Seed example" in card.text


def test_the_token_of_the_environment_is_enough(hub, api, repo, tmp_path):
    assert os.environ["HF_TOKEN"] == hub.token
    trainer = make(tmp_path / repo, eval_strategy="no")
    assert trainer.args.hub_token is None
    trainer.train()
    trainer.hub_sync.close()
    assert titles(api, repo)[-1] == "Training complete"


def test_a_version_tag_and_a_dev_branch(hub, api, repo, tmp_path):
    trainer = make(tmp_path / repo, eval_strategy="no", hub_strategy="end")
    trainer.push_to_hub(commit_message="Work", revision="dev")
    trainer.push_to_hub(commit_message="Version 1", tags=["v1.0.0"])
    trainer.hub_sync.close()
    assert titles(api, repo, "dev") == ["Work"] and titles(api, repo) == ["Version 1"]
    for revision in ("dev", "v1.0.0"):
        BertForSequenceClassification.from_pretrained(
            f"local/{repo}", revision=revision, cache_dir=tmp_path / "cache"
        )


# -- around a training


def plain(output_dir, callback, **changes):
    return Trainer(
        classifier(),
        arguments(output_dir, **({"max_steps": 4} | changes)),
        train_dataset=Sentences(),
        eval_dataset=Sentences(8),
        callbacks=[callback],
    )


def test_two_trainers_in_one_process_each_have_their_repository(hub, api, repo, tmp_path):
    trainers = [plain(tmp_path / f"{repo}-{n}", HubSyncCallback(), hub_strategy="end") for n in "ab"]
    for trainer in trainers:
        trainer.train()
    for n in "ab":
        assert titles(api, f"{repo}-{n}") == ["End of training"]


def test_an_evaluation_and_a_prediction_after_training(hub, api, repo, tmp_path):
    callback = HubSyncCallback(hub_strategy="every_save")
    trainer = plain(tmp_path / repo, callback)
    trainer.train()
    trainer.evaluate()
    before = len(callback.pushes)
    trainer.predict(Sentences(8))
    callback.close()
    assert len(callback.pushes) == before
    assert titles(api, repo)[-1] == "Evaluation, step 4"


def test_a_resumed_training_goes_on_in_the_same_repository(hub, api, repo, tmp_path):
    first = HubSyncCallback(hub_strategy="checkpoint")
    plain(tmp_path / repo, first).train()
    first.close()
    second = HubSyncCallback(hub_strategy="checkpoint")
    plain(tmp_path / repo, second, max_steps=8).train(resume_from_checkpoint=True)
    second.close()
    saved = digests(tmp_path / repo / "checkpoint-8")
    assert on_hub(tmp_path, repo) == root_of(saved) | below("last-checkpoint", saved)
    assert "Training in progress, step 2" not in titles(api, repo)[titles(api, repo).index("End of training") :]


@pytest.mark.parametrize("trainer_class", [Trainer, HubSyncTrainer])
def test_the_trials_of_a_search_are_not_pushed_and_what_is_trained_with_its_result_is(
    hub, api, repo, tmp_path, caplog, trainer_class
):
    optuna = pytest.importorskip("optuna")
    rates = [1e-4, 1e-2, 1e-3]
    callback = HubSyncCallback(hub_strategy="checkpoint", finish_timeout=30)
    trainer = trainer_class(
        args=arguments(tmp_path / repo, max_steps=4, eval_strategy="steps", eval_steps=2, push_to_hub=True),
        model_init=lambda: classifier(),
        train_dataset=Sentences(),
        eval_dataset=Sentences(8),
        callbacks=[callback],
    )
    hub.stop()  # a search needs no Hub
    try:
        best = trainer.hyperparameter_search(
            hp_space=lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", rates)},
            n_trials=3,
            backend="optuna",
            sampler=optuna.samplers.GridSampler({"learning_rate": rates}, seed=0),
        )
        assert not callback.pushes and callback.summary().waiting == 0
    finally:
        hub.start()
    assert {path.parent.name for path in (tmp_path / repo).glob("run-*/checkpoint-4")} == {
        "run-0",
        "run-1",
        "run-2",
    }
    assert caplog.text.count("The trials of a hyperparameter search are not pushed") == 1
    trainer.args.learning_rate = best.hyperparameters["learning_rate"]
    trainer.train()
    callback.close()
    assert titles(api, repo)[-1] in ("Training in progress, step 4", "End of training")
    saved = digests(tmp_path / repo / "checkpoint-4")
    assert on_hub(tmp_path, repo) == root_of(saved) | below("last-checkpoint", saved)
    card = (download(tmp_path, repo) / "README.md").read_text()
    assert f"| `learning_rate` | {best.hyperparameters['learning_rate']} |" in card
