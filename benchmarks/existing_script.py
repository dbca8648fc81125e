"""What a script for the stock Trainer leaves on the Hub, in three forms: as it is, with the callback as one
argument, and as it is under `hub-callbacks run`.

    python benchmarks/existing_script.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = """
import sys
import torch
sys.path.insert(0, {tests!r})
from models import Sentences, accuracy, arguments, classifier, tokenizer
from transformers import Trainer

trainer = Trainer(
    classifier(),
    arguments(sys.argv[1], push_to_hub=True, hub_token=sys.argv[2], eval_strategy="steps", eval_steps=2),
    train_dataset=Sentences(),
    eval_dataset=Sentences(8),
    processing_class=tokenizer(),
    compute_metrics=accuracy,{argument}
)
trainer.train()
trainer.save_model()
trainer.save_metrics("eval", trainer.evaluate())
trainer.push_to_hub(finetuned_from="local/base", tasks="text-classification", dataset_tags="local/data")
print("script ends")
"""
README = "---\nlicense: mit\n---\n\n# Mine\n\nWritten by hand.\n"
FORMS = ("stock", "one argument", "hub-callbacks run")


def write(form: str, output_dir: Path) -> list[str]:
    """Writes the script in one of the forms, and a README.md of a person into `output_dir`.

    Returns:
        How it is started: what comes after `python`, but for its own arguments, `output_dir` and a token.
    """
    output_dir.mkdir(parents=True)
    (output_dir / "README.md").write_text(README)
    script = output_dir.with_suffix(".py")
    argument = "\n    callbacks=[__import__('hub_callbacks').HubSyncCallback()]," if form == "one argument" else ""
    script.write_text(SCRIPT.format(tests=str(ROOT / "tests/support"), argument=argument))
    return [*(["-m", "hub_callbacks", "run"] if form == "hub-callbacks run" else []), str(script)]


def run(form: str, output_dir: Path, token: str) -> subprocess.CompletedProcess[str]:
    """Runs the script in one of the forms."""
    return subprocess.run(
        [sys.executable, *write(form, output_dir), str(output_dir), token],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def left(repo_id: str, token: str, cache: Path) -> dict[str, str]:
    """What a run has left on the Hub: a property → its value, for people."""
    from huggingface_hub import HfApi, ModelCard, snapshot_download

    api = HfApi(token=token)
    titles = [commit.title for commit in reversed(api.list_repo_commits(repo_id))][1:]
    folder = Path(snapshot_download(repo_id, token=token, cache_dir=cache))
    card = ModelCard.load(folder / "README.md")
    names = {path.name for path in folder.iterdir()}
    said = {
        "finetuned_from": card.data.base_model,
        "tasks": card.data.pipeline_tag,
        "dataset_tags": card.data.datasets,
    }
    clear = any(token.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return {
        "commits": ", ".join(f'"{title}"' for title in titles),
        "weights and tokenizer": _yes(
            {"model.safetensors", "tokenizer.json"} <= {p.name for p in folder.iterdir()}
        ),
        "`eval_results.json`": _yes("eval_results.json" in names),
        "keywords of `push_to_hub` on the card": ", ".join(f"`{k}`" for k, v in said.items() if v) or "none",
        "a person's README.md": "kept" if "Written by hand." in card.text else "overwritten",
        "the person's `license: mit`": "kept" if card.data.license == "mit" else "gone",
        "curves of the training": _yes("training_curves.png" in names),
        "`hub_token` in `training_args.bin`": "in clear" if clear else "taken out",
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def main() -> None:
    from hub_callbacks import LocalHub

    with tempfile.TemporaryDirectory() as place, LocalHub(Path(place) / "hub") as hub:
        os.environ |= {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": f"{place}/home"}
        columns = []
        for form in FORMS:
            name = form.replace(" ", "-")
            done = run(form, Path(place) / name, hub.token)
            print(f"{form}: exit status {done.returncode}", file=sys.stderr)
            columns.append(left(f"local/{name}", hub.token, Path(place) / "cache"))
        print("| |", " | ".join(FORMS), "|\n|:--|" + ":--|" * len(FORMS))
        for row in columns[0]:
            print(f"| {row} |", " | ".join(column[row] for column in columns), "|")


if __name__ == "__main__":
    main()
