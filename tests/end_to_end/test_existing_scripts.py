"""Scripts that know nothing of us: as they are, with one argument, and under `hub-callbacks run`."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import pytest

import interpreters
from hub_callbacks.outbox.queue import Outbox
from runs import below, digests, on_hub, root_of, titles
from savers import wait_until

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from existing_script import FORMS, left, write  # noqa: E402

RUN = ["-m", "hub_callbacks", "run"]
HEAD = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests/support")!r})
from models import Sentences, arguments, classifier
from transformers import Trainer
"""
TRAINS = (
    HEAD
    + """
def main(output_dir):
    args = arguments(output_dir, hub_strategy="checkpoint", hub_always_push=True, max_steps=4)
    trainer = Trainer(classifier(), args, train_dataset=Sentences())
    trainer.train()
    return trainer

if __name__ == "__main__":
    main(sys.argv[1])
"""
)


def execute(*arguments, start=interpreters.start, cwd=None):
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = interpreters.run(arguments, start=start, env=env, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


execute_anew = functools.partial(execute, start=interpreters.start_anew)
"""With a new interpreter: what our forms are compared with, the command line itself, and what launchers start."""


@pytest.fixture
def script(tmp_path):
    def write(text, name="script.py"):
        path = tmp_path / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_what_the_three_forms_of_a_script_leave_on_the_hub(hub, repo, tmp_path):
    found = {}
    for number, form in enumerate(FORMS):
        output_dir = tmp_path / f"{repo}-{number}"
        status, output, errors = execute(*write(form, output_dir), output_dir, hub.token)
        assert status == 0, errors[-3000:]
        assert output.endswith("script ends\n")
        found[form] = left(f"local/{repo}-{number}", hub.token, tmp_path / "cache")
    stock, argument, runner = (found[form] for form in FORMS)
    commits = {
        form: found[form].pop("commits") for form in FORMS
    }  # what is skipped or taken over: a matter of speed
    assert all(commits[form].endswith('"End of training"') for form in FORMS)
    assert (
        argument
        == runner
        == {
            "weights and tokenizer": "yes",
            "`eval_results.json`": "yes",
            "keywords of `push_to_hub` on the card": "`finetuned_from`, `tasks`, `dataset_tags`",
            "a person's README.md": "kept",
            "the person's `license: mit`": "kept",
            "curves of the training": "yes",
            "`hub_token` in `training_args.bin`": "taken out",
        }
    )
    assert stock["weights and tokenizer"] == stock["`eval_results.json`"] == "yes"
    page = (ROOT / "docs" / "existing-scripts.md").read_text()
    for row in stock:
        assert f"| {row} | {stock[row]} | {argument[row]} | {runner[row]} |" in page


def test_a_script_under_run_is_the_main_module_with_its_own_arguments(hub, script):
    path = script(
        "import sys\nprint(__name__, __file__, __package__, __spec__, sys.argv, sys.path[0])\n"
        "import neighbour\nimport multiprocessing, pickle\nclass Own: pass\npickle.loads(pickle.dumps(Own()))\n"
        "sys.exit(7)\n"
    )
    script("", "neighbour.py")
    arguments = ["--help", "-m", "x", "--flag=1", "run"]
    plain = execute_anew(path.name, *arguments, cwd=path.parent)
    ours = execute(*RUN, path.name, *arguments, cwd=path.parent)
    assert ours == plain and plain[0] == 7 and str(["script.py", *arguments]) in plain[1]


def test_a_module_under_run_is_as_with_python_m(hub, script):
    script("import sys\nprint(__name__, __file__, sys.argv, sys.path[0], __package__)\n", "pack/__init__.py")
    script("import sys\nprint(__name__, __file__, sys.argv, sys.path[0], __package__)\n", "pack/train.py")
    place = script("", "other.py").parent
    plain = execute_anew("-m", "pack.train", "-a", "1", cwd=place)
    ours = execute(*RUN, "-m", "pack.train", "-a", "1", cwd=place)
    assert ours == plain and plain[0] == 0 and "__main__" in plain[1]


@pytest.mark.parametrize("error", ["ValueError('no')", "KeyboardInterrupt", "SystemExit('said')"])
def test_an_exception_of_a_script_is_shown_and_ends_it_as_without_us(hub, script, error):
    path = script(f"def inner():\n    raise {error}\ninner()\n")
    plain, ours = execute_anew(path), execute(*RUN, path)
    assert ours == plain and plain[0] != 0


def test_a_script_that_is_not_there_is_said(hub, tmp_path):
    status, _, errors = execute(*RUN, tmp_path / "nothing.py")
    assert status == 1 and "there is no file" in errors


def test_every_trainer_is_pushed_and_a_callback_of_its_own_is_not_doubled(hub, api, repo, script, tmp_path):
    path = script(
        HEAD
        + """
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
from hub_callbacks import HubSyncCallback
for name, callbacks in (("a", None), ("b", [HubSyncCallback(hub_strategy="end")])):
    args = arguments(sys.argv[1] + name, hub_always_push=True, max_steps=4)
    trainer = Trainer(classifier(), args, train_dataset=Sentences(), callbacks=callbacks)
    print(sum(isinstance(c, HubSyncCallback) for c in trainer.callback_handler.callbacks))
    trainer.train()
"""
    )
    status, output, errors = execute(*RUN, path, tmp_path / repo)
    assert status == 0, errors[-3000:]
    assert [line for line in output.splitlines() if line.isdecimal()] == ["1", "1"]
    progress = [f"Training in progress, step {step}" for step in (2, 4)]
    # The last save and the end may hold the same: then there is one commit.
    assert titles(api, f"{repo}a")[:2] == progress and titles(api, f"{repo}b") == ["End of training"]


def test_the_command_line_itself_runs_a_script(hub, api, repo, script, tmp_path):
    code = "import sys; from hub_callbacks.cli import main; sys.argv[0] = 'hub-callbacks'; main()"
    status, _, errors = execute_anew("-c", code, "run", script(TRAINS), tmp_path / repo)
    assert status == 0, errors[-3000:]
    saved = digests(tmp_path / repo / "checkpoint-4")
    assert on_hub(tmp_path, repo) == root_of(saved) | below("last-checkpoint", saved)


TORCHRUN = ["torch.distributed.run", "--nproc_per_node=2", "--standalone"]
ACCELERATE = ["accelerate.commands.launch", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
ONE_PROCESS = ["--cpu", "--num_processes=1"]
# Without MPI, --cpu starts one process only; where there is no GPU, these are two on the CPU.
TWO_PROCESSES = ["--multi_gpu", "--num_processes=2", "--main_process_port=0"]


@pytest.mark.parametrize(
    "launch",
    [
        pytest.param([*ACCELERATE, *TWO_PROCESSES], id="accelerate"),
        pytest.param(TORCHRUN, id="torchrun", marks=pytest.mark.slow),  # what accelerate starts its processes by
    ],
)
def test_two_processes(hub, api, repo, script, tmp_path, launch):
    """The Trainer is gone when `main` returns; what waits is sent at the end of the script all the same.

    A script of a user's need not care how gloo's threads end (see `leaving`): where a process aborts for them, the
    launcher ends the others, and the pusher goes on.
    """
    status, output, errors = execute_anew("-m", *launch, *RUN, script(TRAINS), tmp_path / repo)
    assert status == 0 or "SIGABRT" in output + errors, (output + errors)[-3000:]
    wait_until(lambda: not Outbox(tmp_path / repo / "_hub_sync").pending())
    saved = digests(tmp_path / repo / "checkpoint-4")
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= saved.keys()
    assert on_hub(tmp_path, repo) == root_of(saved) | below("last-checkpoint", saved)


@pytest.mark.slow  # two do more
def test_one_process_under_accelerate_launch(hub, api, repo, script, tmp_path):
    status, output, errors = execute_anew("-m", *ACCELERATE, *ONE_PROCESS, *RUN, script(TRAINS), tmp_path / repo)
    assert status == 0, (output + errors)[-3000:]
    assert "Training in progress, step 4" in titles(api, repo)


def test_what_a_function_has_queued_when_it_returns_is_sent(hub, api, repo, script, tmp_path):
    path = script(
        TRAINS.replace(
            "    main(sys.argv[1])",
            """
    def last(output_dir):
        trainer = main(output_dir)
        open(output_dir + "/results.json", "w").write("{}")
        trainer.push_to_hub("Last", blocking=False)

    last(sys.argv[1])
    import gc
    gc.collect()
""",
        )
    )
    status, _, errors = execute(*RUN, path, tmp_path / repo)
    assert status == 0, errors[-3000:]
    assert titles(api, repo)[-1] == "Last" and "results.json" in on_hub(tmp_path, repo)
