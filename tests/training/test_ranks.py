"""Several processes train; one pushes, nobody waits for the network inside training."""

from __future__ import annotations

import pytest
import transformers

from hub_callbacks.localhub.faults import Fault, Hang
from jobs import run_on_one_node, write_script
from runs import below, digests, on_hub, root_of, titles

FSDP_ON_CPU = int(transformers.__version__.split(".")[0]) >= 5


def commits_of_saves(api, repo: str) -> list[str]:
    """Titles but those of evaluations: the script evaluates after training."""
    return [title for title in titles(api, repo) if not title.startswith("Evaluation")]


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_one_repository_and_one_commit_for_each_save(hub, api, repo, tmp_path, processes):
    hub.clear_requests()
    script = write_script(tmp_path, "hub_always_push=True")
    run_on_one_node(script, tmp_path / repo, processes)
    steps = (2, 4, 6, 8) if processes == 2 else (2, 4)
    saves = [f"Training in progress, step {step}" for step in steps]
    # The end makes a commit only if it finds something new: the last checkpoint may have come with it.
    assert commits_of_saves(api, repo) in (saves, [*saves, "End of training"])
    checkpoint = digests(tmp_path / repo / f"checkpoint-{steps[-1]}")
    assert {f"rng_state_{rank}.pth" for rank in range(processes)} <= checkpoint.keys()
    assert on_hub(tmp_path, repo) == root_of(checkpoint) | below("last-checkpoint", checkpoint)
    assert [branch.name for branch in api.list_repo_refs(f"local/{repo}").branches] == ["main"]
    created = [seen for seen in hub.requests if seen.operation == "create_repo"]
    assert [seen.status for seen in created] == [200]


@pytest.mark.skipif(not FSDP_ON_CPU, reason="FSDP needs a GPU before transformers 5")
@pytest.mark.parametrize("state_dict", ["FULL_STATE_DICT", "SHARDED_STATE_DICT"])
def test_fsdp_leaves_a_whole_checkpoint_though_no_save_was_asked_for(hub, api, repo, tmp_path, state_dict):
    config = {"transformer_layer_cls_to_wrap": ["BertLayer"], "state_dict_type": state_dict}
    script = write_script(tmp_path, f'save_strategy="no", fsdp="full_shard auto_wrap", fsdp_config={config!r}')
    run_on_one_node(script, tmp_path / repo, 2)
    checkpoint = digests(tmp_path / repo / "checkpoint-8")
    files = on_hub(tmp_path, repo)
    assert files.items() >= below("last-checkpoint", checkpoint).items()
    if state_dict == "FULL_STATE_DICT":
        assert files.items() >= root_of(checkpoint).items() and "model.safetensors" in files
    else:
        shards = {"pytorch_model_fsdp_0/__0_0.distcp", "pytorch_model_fsdp_0/__1_0.distcp"}
        assert shards <= checkpoint.keys() and "pytorch_model_fsdp_0/.metadata" in checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_no_rank_waits_for_a_hub_that_hangs_longer_than_the_process_group_does(
    hub, api, repo, tmp_path, processes
):
    timeout = 5  # seconds
    script = write_script(tmp_path, f"ddp_timeout={timeout}, hub_always_push=True", "finish_timeout=120")
    with hub.inject(Fault("*", Hang(4 * timeout), times=3)) as hanging:
        agent = run_on_one_node(script, tmp_path / repo, processes)
    assert hanging.hits == 3
    assert "timed out" not in agent.output.lower()
    checkpoint = digests(sorted((tmp_path / repo).glob("checkpoint-*"))[-1])
    assert on_hub(tmp_path, repo).items() >= below("last-checkpoint", checkpoint).items()
