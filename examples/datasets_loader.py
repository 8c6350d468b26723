"""Shards in Hugging Face datasets, streamed: images, labels and metadata. Needs neither skelfit nor a body model.

python examples/datasets_loader.py shards/demo-crops
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_dataset

folder = Path(sys.argv[1])
parts = {f["name"]: f for f in json.loads((folder / "schema.json").read_text())["fields"]}


def with_poses(sample: dict[str, Any]) -> dict[str, Any]:
    label, f = np.asarray(sample["label.npy"], np.float32), parts["skel_poses"]
    return {"skel_poses": label[f["offset"] : f["offset"] + f["size"]]}


tars = sorted(map(str, folder.glob("*.tar")))
people = load_dataset("webdataset", data_files={"train": tars}, split="train", streaming=True)
for person in people.shuffle(seed=0, buffer_size=1000).map(with_poses):
    print(person["__key__"], person["jpg"].size, person["meta.json"]["status"], len(person["skel_poses"]))
